"""`hybridrag watch status --json` and the watcher in `status --json`, for machines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from hybridrag.engine.watching import Watcher
from hybridrag.model.strict import Strict

from .watch_words import warnings


class ForecastOut(Strict):
    """`file` (null: all files together) reaches `threshold_bytes` in `days`, at `bytes_per_day`."""

    file: str | None
    threshold_bytes: int
    bytes_per_day: float
    days: float


class WatcherOut(Strict):
    """The daemon of one database. Times are seconds since 1970; counts are since it was started.

    `pauses` are who asked for those that hold, `drained`: nothing is written for sure. `warnings`: what it warned
    about and is so still.
    """

    model_config = ConfigDict(from_attributes=True, frozen=True)

    running: bool
    state: Literal[
        "starting", "ingesting", "idle", "paused", "waiting", "stopped", "killed", "never started", "unknown"
    ]
    detail: str
    pid: int | None
    host: str | None
    since: float | None
    backend: str | None
    queued: int
    ingested: int
    failed: int
    pauses: tuple[str, ...]
    drained: bool
    last_error: str | None
    warnings: tuple[str, ...]
    forecast: ForecastOut | None


class WatchedOut(WatcherOut):
    """One database with its daemon."""

    database: str


class WatchStatusOut(Strict):
    """The whole answer."""

    version: Literal[1]
    environment: str
    watchers: tuple[WatchedOut, ...]


def _fields(watcher: Watcher) -> dict[str, Any]:
    names = [name for name in WatcherOut.model_fields if name not in ("warnings", "forecast")]
    coming = watcher.forecast
    return {
        **{name: getattr(watcher, name) for name in names},
        "warnings": warnings(watcher),
        "forecast": coming
        and {
            "file": coming.file or None,
            "threshold_bytes": coming.threshold,
            "bytes_per_day": round(coming.per_day, 1),
            "days": round(coming.days, 2),
        },
    }


def watcher_out(watcher: Watcher) -> WatcherOut:
    return WatcherOut.model_validate(_fields(watcher))


def watch_json(environment: str, watchers: list[Watcher]) -> dict[str, Any]:
    """The machine form, as plain values."""
    made = WatchStatusOut.model_validate(
        {
            "version": 1,
            "environment": environment,
            "watchers": [{"database": watcher.database, **_fields(watcher)} for watcher in watchers],
        }
    )
    return made.model_dump(mode="json")
