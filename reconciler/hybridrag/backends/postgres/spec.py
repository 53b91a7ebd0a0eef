"""What a `type: postgres` backend may say in the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hybridrag.model.secret import SecretRef
from hybridrag.model.strict import Strict


class EmbeddedProvision(Strict):
    """A Postgres of our own on this machine, from the binaries that PyPI carries."""

    driver: Literal["embedded"]


DockerName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]+$",
        max_length=200,
        json_schema_extra={
            "patternErrorMessage": 'may hold letters, digits, "_", "." and "-", and starts with a letter or digit'
        },
    ),
]
Size = Annotated[
    str,
    Field(
        pattern=r"^[1-9][0-9]*[kmgKMG]$",
        json_schema_extra={
            "patternErrorMessage": 'must be a size in Docker\'s words, such as "512m" or "4g"'
        },
    ),
]


def size_bytes(size: str) -> int:
    """Bytes of "512m", "4g": powers of 1,024, as Docker counts."""
    return int(size[:-1]) << {"k": 10, "m": 20, "g": 30}[size[-1].lower()]


class DockerProvision(Strict):
    """A Postgres in a container on this machine, with its data in a named volume."""

    driver: Literal["docker"]
    image: str = Field(
        default="pgvector/pgvector:pg16",
        min_length=1,
        pattern=r"^[^\s]+$",
        description="An image with the official Postgres image's contract, and pgvector in it.",
    )
    container: DockerName | None = Field(
        default=None, description="Name of the container; default: hybridrag-<environment>-<backend>."
    )
    volume: DockerName | None = Field(
        default=None,
        description="Named volume that holds the data; default: the container's name with -data.",
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port on 127.0.0.1; the same as the backend's `port`."
    )
    memory: Size | None = Field(
        default="4g",
        description="Most memory the container may use; null: no limit. Changed without a restart.",
    )
    shm_size: Size = Field(
        default="1g", description="Shared memory (/dev/shm); parallel index builds need about 1 GB."
    )

    @model_validator(mode="after")
    def _enough(self) -> DockerProvision:
        if self.memory is not None and size_bytes(self.memory) < 512 << 20:
            raise ValueError("memory must be at least 512m")
        return self


TlsMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


AuthMethod = Literal["scram-sha-256", "md5", "password"]


class TlsSpec(Strict):
    """TLS towards the server, in libpq's words and meaning."""

    mode: TlsMode = "prefer"
    ca: Path | None = Field(
        default=None,
        description="Root certificate file; default for verify-ca and verify-full: the system's store.",
    )
    cert: Path | None = Field(default=None, description="Client certificate file.")
    key: Path | None = Field(default=None, description="Client key file, without a passphrase.")

    @model_validator(mode="after")
    def _pair(self) -> TlsSpec:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; give both or neither")
        return self


SETTING_NAME = r"^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$"
SettingName = Annotated[
    str,
    Field(
        pattern=SETTING_NAME,
        json_schema_extra={"patternErrorMessage": "is not the name of a Postgres setting"},
    ),
]
RESERVED_SETTINGS = frozenset(
    {
        "client_encoding",
        "datestyle",
        "intervalstyle",
        "timezone",
        "default_transaction_read_only",
        "is_superuser",
    }
)
"""A copy is exact only under our own values of these."""


class PoolSpec(Strict):
    """How many connections we may hold at once."""

    max: int = Field(default=10, ge=1, le=100)


class VectorIndexSpec(Strict):
    """The vector index that LightRAG keeps on its three vector tables, in LightRAG's own words.

    `hnsw` and `ivfflat` take up to 2,000 dimensions; `hnsw_halfvec` up to 4,000 and holds vectors as float16;
    `none` takes any and searches them all.
    """

    type: Literal["hnsw", "hnsw_halfvec", "ivfflat", "none"] = "hnsw"
    m: int = Field(default=16, ge=2, le=100, description="HNSW: links of each vector.")
    ef_construction: int = Field(default=64, ge=4, le=1000, description="HNSW: candidates while building.")
    ef_search: int = Field(
        default=200,
        ge=1,
        le=1000,
        description="HNSW: candidates of a search; more of them find more, and take longer.",
    )
    lists: int = Field(default=100, ge=1, le=32768, description="IVFFlat: lists the vectors are spread over.")

    @model_validator(mode="after")
    def _pgvector_rule(self) -> VectorIndexSpec:
        if self.ef_construction < 2 * self.m:
            raise ValueError("ef_construction must be at least 2 * m")
        return self


_IN_STRING = ("host", "port", "user", "database", "password", "options")


class PostgresSpec(Strict):
    """A Postgres server with pgvector. Without `provision` it is external: never created, never destroyed."""

    type: Literal["postgres"]
    provision: Annotated[EmbeddedProvision | DockerProvision, Field(discriminator="driver")] | None = None
    connection_string: SecretRef | None = Field(
        default=None,
        description="Where a URI (postgresql://…) or libpq's keywords (host=… user=…) are found; instead of host, "
        "port, user, database, password and options.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Name, address, or folder of a unix socket; several with commas, of which the writable one is used.",
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Default 5432; a provisioned server picks a free one and keeps it.",
    )
    user: str = Field(default="hybridrag", min_length=1, max_length=63)
    database: str = Field(default="hybridrag", min_length=1, max_length=63)
    isolation: Literal["workspace", "database"] = Field(
        default="workspace",
        description="What keeps LightRAG databases apart: a workspace in shared tables and vector indexes, or a Postgres "
        "database of its own for each, named <database>_<workspace> and created when the first copy begins.",
    )
    password: SecretRef | None = None
    options: dict[SettingName, str | int | float | bool] = Field(
        default_factory=dict,
        description="Settings of every session, such as search_path; for LightRAG's sessions as well.",
    )
    tls: TlsSpec = TlsSpec()
    require_auth: AuthMethod | None = Field(
        default=None,
        description="The weakest way in which the password is given without TLS; default: scram-sha-256, and md5 as well "
        "on this machine. LightRAG itself gives it in any way it is asked for.",
    )
    pool: PoolSpec = PoolSpec()
    vector_index: VectorIndexSpec = VectorIndexSpec()
    graph_storage: Literal["PGTableGraphStorage", "PGGraphStorage"] = Field(
        default="PGTableGraphStorage",
        description="LightRAG's class for graphs: its own tables, or Apache AGE (PGGraphStorage).",
    )

    @model_validator(mode="after")
    def _provisioned_is_local(self) -> PostgresSpec:
        if self.provision is not None and self.host not in ("127.0.0.1", "localhost"):
            raise ValueError('a provisioned server listens on 127.0.0.1 only; remove "host"')
        if self.port is not None and self._inner_port not in (None, self.port):
            raise ValueError(f"port is {self.port} here and {self._inner_port} in provision; give one")
        return self

    @model_validator(mode="after")
    def _said_once(self) -> PostgresSpec:
        if self.connection_string is None:
            return self
        if self.provision is not None:
            raise ValueError("connection_string leads to an external server; remove it, or provision")
        if twice := [name for name in _IN_STRING if name in self.model_fields_set]:
            raise ValueError(f"connection_string says it already; remove {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _age_is_prepared(self) -> PostgresSpec:
        if self.isolation == "database" and self.graph_storage == "PGGraphStorage":
            raise ValueError(
                "isolation: database makes databases that no administrator has prepared for AGE; use isolation: workspace"
            )
        return self

    @model_validator(mode="after")
    def _understood(self) -> PostgresSpec:
        if any(not host or any(c.isspace() for c in host) for host in self.hosts):
            raise ValueError('host must be one name or address, or several as in "a.example,b.example"')
        for name, value in self.settings.items():
            if name.lower() in RESERVED_SETTINGS:
                raise ValueError(f'options: hybridrag sets "{name}" itself; remove it')
            if "&" in value:
                raise ValueError(f'options: LightRAG cannot pass on a value with "&" ({name})')
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """One, or several; an IPv6 address without brackets."""
        return tuple(host.removeprefix("[").removesuffix("]") for host in self.host.split(","))

    @property
    def settings(self) -> dict[str, str]:
        """`options` in Postgres' words."""
        words = {True: "on", False: "off"}
        return {
            name: words[value] if isinstance(value, bool) else str(value)
            for name, value in self.options.items()
        }

    @property
    def declared_port(self) -> int | None:
        """The port that the spec names, here or in `provision`."""
        return self.port if self.port is not None else self._inner_port

    @property
    def _inner_port(self) -> int | None:
        return self.provision.port if isinstance(self.provision, DockerProvision) else None
