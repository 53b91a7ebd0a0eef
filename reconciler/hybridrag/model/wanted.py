"""What the spec wants of one database, freed of YAML: the planner's only view of the spec."""

from __future__ import annotations

from dataclasses import dataclass

from .ports import Embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which size on a database in JSON files is warned about, in bytes: its largest file, all its files."""

    file_bytes: int = 500_000_000
    total_bytes: int = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One database. `path` is absolute; `batch` is in records; `function` names the embedding function.

    `prevent_destroy`: the server that holds it may not be replaced or left behind.
    """

    database: str
    path: str
    workspace: str
    backend: str
    backend_type: str
    provisioned: bool
    embedding: Embedding
    batch: int
    thresholds: Thresholds = Thresholds()
    prevent_destroy: bool = False
    function: str | None = None

    @classmethod
    def server_only(cls, backend: str, backend_type: str) -> Wanted:
        """A provisioned server that no database is on yet."""
        return cls(
            database="",
            path="",
            workspace="",
            backend=backend,
            backend_type=backend_type,
            provisioned=True,
            embedding=Embedding(model=None, dim=1),
            batch=1,
        )
