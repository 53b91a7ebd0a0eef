"""Status for machines: what `hybridrag status --json` prints (`schemas/status.schema.json`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from hybridrag.engine import Status
from hybridrag.model.data import Slot
from hybridrag.model.facts import Value
from hybridrag.model.strict import Strict

from .status_words import warnings
from .watch_json import WatcherOut, watcher_out


class StreamOut(Strict):
    """How far one stream of a running move is; units as in `MigrationOut`."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    namespace: str
    records: int
    total: int
    rate: float | None
    eta_s: float | None


class MigrationOut(Strict):
    """A move that runs or did not come to its end. `rate` is records per second, `eta_s` seconds.

    `streams` are those that are being worked on now.
    """

    model_config = ConfigDict(from_attributes=True, frozen=True)

    state: Literal["running", "interrupted", "failed"]
    step: str
    phase: str
    records: int
    total: int
    bytes: int
    rate: float | None
    eta_s: float | None
    error: str | None
    streams: tuple[StreamOut, ...] = ()


class KeptOut(Strict):
    """What served some slots before `since`, and is kept at least until `until` (ISO 8601)."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    backend: str
    type: str
    slots: tuple[Slot, ...]
    since: datetime
    until: datetime


class DatabaseOut(Strict):
    """One database.

    `records` are by namespace, None where they could not be told; those listed in `estimated` are estimates.
    `bytes` is None where the size is not known; `file_sizes` is empty where a server keeps the data. `problem` is the
    first of `warnings` that says what is broken. `pending`: the spec wants another backend than the one in use.
    `watcher`: the daemon that feeds it, None where none is to.
    """

    database: str
    backend: str
    backend_type: str
    wanted: str
    pending: bool
    health: Literal["healthy", "degraded", "error"]
    problem: str | None
    warnings: tuple[str, ...]
    records: dict[str, int | None]
    estimated: tuple[str, ...]
    bytes: int | None
    file_sizes: dict[str, int]
    latency_ms: float | None
    migration: MigrationOut | None
    kept: tuple[KeptOut, ...]
    watcher: WatcherOut | None


class BackendOut(Strict):
    """One backend that is used or wanted, with everything that was observed of it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Value]

    name: str
    type: str


class RunOut(Strict):
    """The newest apply. Times are seconds since 1970; `outcome` is None while it runs, or after a kill."""

    id: str
    started: float
    finished: float | None
    who: str
    outcome: str | None
    error: str | None


class StatusOut(Strict):
    """The whole answer. `running`: an apply works right now; `paused`: databases whose pause is open.

    `warnings` are about backends as a whole.
    """

    version: Literal[1]
    environment: str
    databases: tuple[DatabaseOut, ...]
    backends: tuple[BackendOut, ...]
    last_run: RunOut | None
    running: bool
    paused: tuple[str, ...]
    warnings: tuple[str, ...]


def status_json(status: Status) -> dict[str, Any]:
    """The machine form, as plain values."""
    run = status.last_run
    made = StatusOut.model_validate(
        {
            "version": 1,
            "environment": status.environment,
            "databases": [
                {
                    "database": item.database,
                    "backend": item.backend,
                    "backend_type": item.backend_type,
                    "wanted": item.wanted,
                    "pending": item.wanted != item.backend,
                    "health": item.health,
                    "problem": item.problems[0] if item.problems else None,
                    "warnings": tuple(warnings(item)),
                    "records": dict(item.records),
                    "estimated": tuple(sorted(item.estimated)),
                    "bytes": item.size,
                    "file_sizes": dict(item.sizes),
                    "latency_ms": item.latency_ms,
                    "migration": item.migration and MigrationOut.model_validate(item.migration),
                    "kept": tuple(KeptOut.model_validate(each) for each in item.kept),
                    "watcher": item.watcher and watcher_out(item.watcher),
                }
                for item in status.databases
            ],
            "backends": [
                {**item.facts, **item.details, "name": item.name, "type": item.type}
                for item in status.backends
            ],
            "last_run": run and {name: getattr(run, name) for name in RunOut.model_fields},
            "running": status.running,
            "paused": status.paused,
            "warnings": status.warnings,
        }
    )
    return made.model_dump(mode="json")
