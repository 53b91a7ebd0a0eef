"""What a `type: milvus` backend may say in the spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hybridrag.model.secret import SecretRef
from hybridrag.model.strict import Strict

from .declared import DATABASE, URI

Uri = Annotated[
    str,
    Field(
        pattern=r"^https?://[^/@\s]+/?$",
        json_schema_extra={
            "patternErrorMessage": "must be the address of a server, such as http://127.0.0.1:19530, without a password "
            "in it (https:// for TLS)"
        },
    ),
]
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=255,
        json_schema_extra={
            "patternErrorMessage": 'may hold letters, digits and "_", and starts with no digit'
        },
    ),
]


class IndexSpec(Strict):
    """The vector index that LightRAG makes on its three collections, in the server's own words."""

    type: Literal["autoindex", "hnsw", "hnsw_sq", "ivf_flat", "ivf_sq8", "diskann", "scann"] = "autoindex"
    metric: Literal["cosine", "ip", "l2"] = Field(
        default="cosine", description="LightRAG's similarity threshold is meant for cosine."
    )
    m: int = Field(default=16, ge=2, le=2048, description="hnsw, hnsw_sq: links of a node.")
    ef_construction: int = Field(default=360, ge=1, description="hnsw, hnsw_sq: breadth while building.")
    ef: int = Field(default=200, ge=1, description="hnsw, hnsw_sq: breadth while searching.")
    sq_type: Literal["sq4u", "sq6", "sq8", "bf16", "fp16"] = Field(
        default="sq8", description="hnsw_sq: how vectors are held in the index."
    )
    nlist: int = Field(default=1024, ge=1, le=65536, description="ivf_*: clusters.")
    nprobe: int = Field(default=16, ge=1, le=65536, description="ivf_*: clusters that are searched.")

    @model_validator(mode="after")
    def _searchable(self) -> IndexSpec:
        if self.nprobe > self.nlist:
            raise ValueError("nprobe must not be above nlist")
        return self


class MilvusSpec(Strict):
    """A Milvus server for the vectors of a database. It is external: never created, never destroyed."""

    type: Literal["milvus"]
    uri: Uri = Field(default=URI, description="Address of the server; https:// for TLS.")
    database: Name = DATABASE
    user: str | None = Field(default=None, min_length=1)
    password: SecretRef | None = None
    token: SecretRef | None = Field(default=None, description="An API key, instead of user and password.")
    index: IndexSpec = IndexSpec()

    @model_validator(mode="after")
    def _one_login(self) -> MilvusSpec:
        if (self.user is None) != (self.password is None):
            raise ValueError("give user and password together, or neither")
        if self.token is not None and self.user is not None:
            raise ValueError("give either token, or user and password")
        return self
