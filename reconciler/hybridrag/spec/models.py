"""The nouns of a spec: what may stand in `hybridrag.yaml`, after merging and interpolation.

`spec.loader` builds an `Environment` from files; planner, engine and cli read it. The published JSON
Schema is generated from these classes (`spec.schema`), so a description here is what an editor shows.
No file is read here, and nothing here may hold a secret: see `model.secret.SecretRef`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, BeforeValidator, Field

from hybridrag.backends import SPECS
from hybridrag.model.data import Slot
from hybridrag.model.strict import Strict
from hybridrag.model.wanted import KEEP_SOURCE_S, Thresholds
from hybridrag.model.workspaces import NAME as WORKSPACE

from .values import Duration, FunctionRef, Share, Size, SpecPath, bytes_of, seconds_of, share_of
from .writers import ModelsSpec, NoWriterSpec, SourceSpec, WriterSpec

# `patternErrorMessage` is what yaml-language-server shows, and what our own errors say.
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=100,
        json_schema_extra={
            "patternErrorMessage": 'may hold letters, digits, "-" and "_", and starts with a letter or digit'
        },
    ),
]


def _without_margin(name: str) -> str:
    if name != name.strip():
        raise ValueError("a workspace begins and ends with no space; LightRAG would take it away")
    return name


Workspace = Annotated[
    str,
    Field(
        pattern=WORKSPACE,
        max_length=255,
        json_schema_extra={
            "patternErrorMessage": 'may hold no "/", "\\" or control character, and is neither "." nor ".."'
        },
    ),
    AfterValidator(_without_margin),
]


def lower_type(backend: Any) -> Any:
    """The entry with its `type` in lower case: `type: Postgres` means `type: postgres`."""
    if isinstance(backend, dict) and isinstance(backend.get("type"), str):
        return {**backend, "type": backend["type"].lower()}
    return backend


if TYPE_CHECKING:
    BackendSpec = Strict  # which one is known at run time only: backends/__init__.py holds the only list
else:
    BackendSpec = Annotated[
        Union[tuple(SPECS.values())],  # noqa: UP007 - the members come from a list, `|` cannot say that
        Field(discriminator="type"),
        BeforeValidator(lower_type),
    ]


class StateSpec(Strict):
    """Where runs, leases and checkpoints are kept."""

    driver: Literal["file"] = "file"
    path: SpecPath = Field(
        default=Path("./state"), description="Folder of local state, relative to the first spec file."
    )


class EmbeddingSpec(Strict):
    """The embedding that the stored vectors were made with; a backend must be able to hold `dim`."""

    model: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the embedding model, as LightRAG is told it (EMBEDDING_MODEL); null where it is told none. "
        "Required where vectors are in Postgres or Milvus: LightRAG names their tables and collections after it.",
    )
    dim: int = Field(ge=1, le=16000, description="Length of one vector.")
    function: FunctionRef | None = Field(
        default=None,
        description="Where to find an async embedding function: `file.py:name` relative to the spec, or "
        "`package.module:name`. Only `hybridrag query` needs it.",
    )


class MigrationSpec(Strict):
    """How records are copied when the backend changes."""

    batch: int = Field(default=1000, ge=1, le=100_000, description="Records per write.")
    on_bad_record: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="A record that the target cannot hold stops the migration before anything is copied, or is put "
        "aside into a file below the state folder while everything else is moved.",
    )
    verify: Literal["full"] = "full"


class ThresholdsSpec(Strict):
    """From which size on a database in JSON files is warned about, and from which slowdown on."""

    file_size: Size | None = Field(default=None, description="Largest file; default 500MB.")
    total_size: Size | None = Field(default=None, description="All files of the database; default 2GB.")
    ingest_slowdown: Share | None = Field(
        default=None, description="How much slower than usual the watcher may get; default 50%."
    )


class LifecycleSpec(Strict):
    """What may never happen to a database, whatever else the spec says."""

    prevent_destroy: bool | None = Field(
        default=None,
        description="Refuse a plan that would replace, or leave behind, the server that holds it; default false.",
    )
    keep_source: Duration | None = Field(
        default=None,
        description="For how long what served before a move is kept at least; default 7d. Only hybridrag retire deletes it.",
    )


class DefaultsSpec(Strict):
    """What holds for every database that says nothing else."""

    thresholds: ThresholdsSpec = ThresholdsSpec()
    lifecycle: LifecycleSpec = LifecycleSpec()


BackendName = Annotated[str, Field(min_length=1)]


class SlotsSpec(Strict):
    """A backend for each of LightRAG's four storages."""

    kv: BackendName
    doc_status: BackendName
    vector: BackendName
    graph: BackendName


class DatabaseSpec(Strict):
    """One LightRAG database and the backend it should live in."""

    path: SpecPath = Field(
        description="The folder that directly holds kv_store_*.json, vdb_*.json and *.graphml, relative to "
        "the first spec file."
    )
    workspace: Workspace | None = Field(
        default=None,
        description="Isolation inside a shared server; default: the database's name with - as _.",
    )
    backend: BackendName | SlotsSpec = Field(
        description="Name of an entry below `backends`, or one for each slot."
    )
    embedding: EmbeddingSpec
    source: SourceSpec | None = Field(default=None, description="What `hybridrag watch` ingests.")
    writer: WriterSpec = NoWriterSpec(kind="none")
    migration: MigrationSpec = MigrationSpec()
    thresholds: ThresholdsSpec = ThresholdsSpec()
    lifecycle: LifecycleSpec = LifecycleSpec()

    def placement(self) -> dict[Slot, str]:
        """The backend's name for each slot."""
        if isinstance(self.backend, str):
            return dict.fromkeys(Slot, self.backend)
        return {slot: getattr(self.backend, slot.value) for slot in Slot}

    def effective_workspace(self, name: str) -> str:
        """The workspace in use: the one given, or the database's `name` with - as _."""
        return self.workspace if self.workspace is not None else name.replace("-", "_")


class Environment(Strict):
    """A hybridrag environment: its backends, its databases, and which database lives where."""

    version: Literal[1] = Field(description="Version of this format.")
    environment: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        max_length=63,
        description="Names the state folder, Docker objects and leases.",
        json_schema_extra={
            "patternErrorMessage": 'may hold a-z, 0-9 and "-", and starts with a letter or digit'
        },
    )
    state: StateSpec = StateSpec()
    backends: dict[Name, BackendSpec] = Field(
        description="Every connection once; databases refer to it by name."
    )
    defaults: DefaultsSpec = DefaultsSpec()
    models: ModelsSpec = ModelsSpec()
    databases: dict[Name, DatabaseSpec] = Field(description="The databases of this environment, by name.")

    def thresholds(self, name: str) -> Thresholds:
        """The thresholds of one database: its own, else the defaults, else ours."""
        own, common = self.databases[name].thresholds, self.defaults.thresholds
        given = {
            "file_bytes": own.file_size or common.file_size,
            "total_bytes": own.total_size or common.total_size,
        }
        slowdown = own.ingest_slowdown or common.ingest_slowdown
        found = Thresholds(**{key: bytes_of(size) for key, size in given.items() if size})
        return replace(found, ingest_slowdown=share_of(slowdown)) if slowdown else found

    def prevent_destroy(self, name: str) -> bool:
        """Whether one database's server may not be replaced or left behind."""
        own, common = self.databases[name].lifecycle, self.defaults.lifecycle
        return bool(common.prevent_destroy if own.prevent_destroy is None else own.prevent_destroy)

    def keep_source_s(self, name: str) -> int:
        """For how many seconds what served one database before is kept at least."""
        own, common = self.databases[name].lifecycle, self.defaults.lifecycle
        given = own.keep_source or common.keep_source
        return seconds_of(given) if given else KEEP_SOURCE_S
