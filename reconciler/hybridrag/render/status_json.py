"""Status for machines: what `hybridrag status --json` prints (`schemas/status.schema.json`)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from hybridrag.engine import Status
from hybridrag.model.facts import Value
from hybridrag.model.strict import Strict


class DatabaseOut(Strict):
    """One database. `bytes` is None where the size is not known; `records` are by namespace."""

    database: str
    backend: str
    backend_type: str
    wanted: str
    health: Literal["healthy", "degraded", "error"]
    problem: str | None
    records: dict[str, int]
    bytes: int | None


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
    """The whole answer. `paused` lists databases whose pause a killed run left open."""

    version: Literal[1]
    environment: str
    databases: tuple[DatabaseOut, ...]
    backends: tuple[BackendOut, ...]
    last_run: RunOut | None
    paused: tuple[str, ...]


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
                    "health": item.health,
                    "problem": item.problem,
                    "records": item.records,
                    "bytes": item.size,
                }
                for item in status.databases
            ],
            "backends": [
                {**item.facts, **item.details, "name": item.name, "type": item.type}
                for item in status.backends
            ],
            "last_run": run and {name: getattr(run, name) for name in RunOut.model_fields},
            "paused": status.paused,
        }
    )
    return made.model_dump(mode="json")
