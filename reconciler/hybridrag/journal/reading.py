"""Read the journal without writing: no file is created or changed, not even SQLite's side files."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hybridrag.model.events import StreamProgress

from .lease import is_held


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One apply of the past, or the running one (outcome None). Times are seconds since 1970."""

    id: str
    started: float
    finished: float | None
    who: str
    outcome: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """How far the newest migration of one database came; `outcome` and `error` are its run's.

    `rate` is records per second, `eta_s` seconds as of `at` (seconds since 1970); None while unknown. `streams`
    were being worked on.
    """

    database: str
    run: str
    step: str
    phase: str
    records: int
    total: int
    bytes: int
    rate: float | None
    eta_s: float | None
    at: float
    outcome: str | None
    error: str | None
    streams: tuple[StreamProgress, ...] = ()


@contextlib.contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection | None]:
    if not path.is_file():
        yield None
        return
    wal = path.with_name(path.name + "-wal")
    live = wal.exists() and wal.stat().st_size > 0
    # Without a live log the file alone is the truth; with one, its index is mapped but never written.
    mode = "mode=ro&readonly_shm=1" if live else "immutable=1"
    db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=2)
    db.row_factory = sqlite3.Row
    try:
        yield db
    finally:
        db.close()


_PROGRESS = "SELECT progress.*, outcome, error FROM progress JOIN run ON run.id = progress.run"


def last_run(path: Path) -> RunRecord | None:
    """The newest run; None when there is none or the journal cannot be read (it only informs)."""
    try:
        with open_read_only(path) as db:
            row = (
                db
                and db.execute(
                    "SELECT id, started, finished, who, outcome, error FROM run ORDER BY started DESC LIMIT 1"
                ).fetchone()
            )
    except sqlite3.Error:
        return None
    return RunRecord(*row) if row else None


def open_pauses(path: Path) -> list[str]:
    """Databases whose pause a killed run left open."""
    try:
        with open_read_only(path) as db:
            return (
                [row[0] for row in db.execute("SELECT database FROM pause ORDER BY database")] if db else []
            )
    except sqlite3.Error:
        return []


def is_running(path: Path) -> bool:
    """Whether an apply holds the lease right now."""
    try:
        with open_read_only(path) as db:
            row = db.execute("SELECT host, pid, process, expires FROM lease").fetchone() if db else None
    except sqlite3.Error:
        return False
    return row is not None and is_held(*row)


def progress(path: Path) -> dict[str, ProgressRecord]:
    """How far each database's newest migration came, by database; empty when the journal cannot be read."""
    try:
        with open_read_only(path) as db:
            rows = db.execute(_PROGRESS).fetchall() if db else []
        return {row["database"]: _progress_record(row) for row in rows}
    except (sqlite3.Error, ValueError, TypeError):
        return {}


def _progress_record(row: sqlite3.Row) -> ProgressRecord:
    told = dict(row)
    # A journal that no run of this version has written yet has no streams.
    streams = tuple(StreamProgress(**stream) for stream in json.loads(told.pop("streams", "[]")))
    return ProgressRecord(**told, streams=streams)


def known_counts(path: Path, folder: str) -> Mapping[str, tuple[str, int]]:
    """`model.ports.KnownCounts` of one journal; empty when it cannot be read."""
    try:
        with open_read_only(path) as db:
            statement = "SELECT namespace, identity, records FROM counted WHERE folder = ?"
            rows = db.execute(statement, (folder,)).fetchall() if db else []
    except sqlite3.Error:
        return {}
    return {namespace: (identity, records) for namespace, identity, records in rows}
