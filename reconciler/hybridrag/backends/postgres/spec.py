"""What a `type: postgres` backend may say in the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from hybridrag.model.secret import SecretRef
from hybridrag.model.strict import Strict


class EmbeddedProvision(Strict):
    """A Postgres of our own on this machine, from the binaries that PyPI carries."""

    driver: Literal["embedded"]


class TlsSpec(Strict):
    """TLS towards the server, in libpq's words."""

    mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ca: Path | None = Field(default=None, description="Root certificate file.")
    cert: Path | None = Field(default=None, description="Client certificate file.")
    key: Path | None = Field(default=None, description="Client key file.")


class PoolSpec(Strict):
    """How many connections we may hold at once."""

    max: int = Field(default=10, ge=1, le=100)


class VectorIndexSpec(Strict):
    """The vector index that LightRAG keeps on its three vector tables (HNSW, up to 2,000 dimensions)."""

    type: Literal["hnsw"] = "hnsw"
    m: int = Field(default=16, ge=2, le=100)
    ef_construction: int = Field(default=64, ge=4, le=1000)

    @model_validator(mode="after")
    def _pgvector_rule(self) -> VectorIndexSpec:
        if self.ef_construction < 2 * self.m:
            raise ValueError("ef_construction must be at least 2 * m")
        return self


class PostgresSpec(Strict):
    """A Postgres server with pgvector. Without `provision` it is external: never created, never destroyed."""

    type: Literal["postgres"]
    provision: EmbeddedProvision | None = None
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Default 5432; an embedded server picks a free one and keeps it.",
    )
    user: str = Field(default="hybridrag", min_length=1, max_length=63)
    database: str = Field(default="hybridrag", min_length=1, max_length=63)
    password: SecretRef | None = None
    tls: TlsSpec = TlsSpec()
    pool: PoolSpec = PoolSpec()
    vector_index: VectorIndexSpec = VectorIndexSpec()

    @model_validator(mode="after")
    def _embedded_is_local(self) -> PostgresSpec:
        if self.provision is not None and self.host not in ("127.0.0.1", "localhost"):
            raise ValueError('an embedded server listens on 127.0.0.1 only; remove "host"')
        return self
