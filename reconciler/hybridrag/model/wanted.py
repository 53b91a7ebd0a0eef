"""What the spec wants of one database, freed of YAML: the planner's only view of the spec."""

from __future__ import annotations

from dataclasses import dataclass

from .ports import Embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One database. `path` is absolute; `batch` is in records; `function` names the embedding function."""

    database: str
    path: str
    workspace: str
    backend: str
    backend_type: str
    provisioned: bool
    embedding: Embedding
    batch: int
    function: str | None = None
