"""`hybridrag backend status --json`: the form that the command contract gives (`schemas/backend-status.schema.json`)."""

from __future__ import annotations

from typing import Any, Literal

from hybridrag.engine.status import DatabaseStatus
from hybridrag.model.strict import Strict

from .status_json import KeptOut, MigrationOut
from .status_words import size_warnings, warnings


class MetricsOut(Strict):
    """Storage metrics. Counts are None where they could not be told; those listed in `estimated` are estimates.

    `file_sizes` are bytes by file, empty where a server keeps the data; `total_size_bytes` are all files, or the
    server's whole database (all workspaces in it). `connection_latency_ms` is the time to connect and log in, None
    for files. `warnings` are those about sizes. `records` (`--verbose`) are all counts, by namespace.
    """

    backend_type: str
    file_sizes: dict[str, int]
    total_size_bytes: int | None
    entity_count: int | None
    relation_count: int | None
    chunk_count: int | None
    doc_count: int | None
    estimated: tuple[str, ...]
    is_connected: bool
    connection_latency_ms: float | None
    warnings: tuple[str, ...]
    records: dict[str, int | None] | None = None


class DatabaseStatusOut(Strict):
    """One database. `warnings` are all of them: what is broken, then what is too big."""

    database: str
    backend: str
    backend_type: str
    wanted: str
    status: Literal["healthy", "degraded", "error"]
    metrics: MetricsOut
    warnings: tuple[str, ...]
    migration: MigrationOut | None
    kept: tuple[KeptOut, ...]


COUNTS = {
    "entity_count": "entities",
    "relation_count": "relationships",
    "chunk_count": "chunks",
    "doc_count": "doc_status",
}


def database_json(database: DatabaseStatus, *, verbose: bool = False) -> dict[str, Any]:
    """The contract's object of one database, as plain values; `records` is there only when asked for."""
    counts = {name: database.records.get(namespace) for name, namespace in COUNTS.items()}
    estimated = tuple(name for name, namespace in COUNTS.items() if namespace in database.estimated)
    made = DatabaseStatusOut(
        database=database.database,
        backend=database.backend,
        backend_type=database.backend_type,
        wanted=database.wanted,
        status=database.health,
        metrics=MetricsOut(
            backend_type=database.backend_type,
            file_sizes=dict(database.sizes),
            total_size_bytes=database.size,
            **counts,
            estimated=estimated,
            is_connected=database.connected,
            connection_latency_ms=database.latency_ms,
            warnings=tuple(size_warnings(database)),
            records=dict(database.records) if verbose else None,
        ),
        warnings=tuple(warnings(database)),
        migration=database.migration and MigrationOut.model_validate(database.migration),
        kept=tuple(KeptOut.model_validate(each) for each in database.kept),
    )
    plain = made.model_dump(mode="json")
    if not verbose:
        del plain["metrics"]["records"]
    return plain
