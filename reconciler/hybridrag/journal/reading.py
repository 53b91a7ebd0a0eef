"""Read the journal without writing: no file is created or changed, not even SQLite's side files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from hybridrag.model.events import StreamProgress

from .columns import checked, moment
from .database import Journal
from .lease import TTL_S, Holder, is_held
from .state_file import NO_FILE, unreadable

T = TypeVar("T")

UNREADABLE = (sqlite3.Error, ValueError, TypeError, OverflowError, OSError)
"""What reading a damaged file can end with: of what is still a table any value may be another."""


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


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run with the digests of the spec and of what was observed when it was planned."""

    record: RunRecord
    spec_digest: str
    observation_digest: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a run; `outcome` is done, unchanged or failed, None while it runs or where it was killed."""

    step: str
    started: float
    finished: float | None
    outcome: str | None
    detail: str | None


@contextlib.contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection | None]:
    if not path.is_file():
        if os.path.lexists(path):
            raise ValueError(NO_FILE)
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


_RUNS = "SELECT id, started, finished, who, outcome, error FROM run"
_PROGRESS = "SELECT progress.*, outcome, error FROM progress JOIN run ON run.id = progress.run"


def last_run(path: Path) -> RunRecord | None:
    """The newest run; None when there is none or the journal cannot be read (it only informs)."""
    try:
        with open_read_only(path) as db:
            row = db and db.execute(f"{_RUNS} ORDER BY started DESC LIMIT 1").fetchone()
        return _run_record(row) if row else None
    except UNREADABLE:
        return None


def _run_record(row: Sequence[Any]) -> RunRecord:
    """Raises TypeError, ValueError for what cannot be."""
    found, started, finished, who, outcome, error = row
    ended = None if finished is None else moment(finished)
    return RunRecord(
        str(found), moment(started), ended, str(who), outcome and str(outcome), error and str(error)
    )


def problem(path: Path) -> str | None:
    """Why the history in a journal cannot be told; None where it can, and where there is none."""
    try:
        with open_read_only(path) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0] if db else 0
            if version > len(Journal.VERSIONS):
                return f"it was written by a newer hybridrag (schema {version})"
            if db and version:
                db.execute("SELECT host, pid, process, expires FROM lease").fetchall()
                for row in db.execute(f"{_RUNS} ORDER BY started DESC LIMIT 100"):
                    _run_record(row)
    except UNREADABLE as error:
        return str(error) or type(error).__name__
    return None


def runs(path: Path, limit: int | None = None) -> list[RunRecord]:
    """The newest first. Raises JournalUnreadable: who asks for history must not be told that there is none."""
    return _told(
        path, f"{_RUNS} ORDER BY started DESC LIMIT ?", (-1 if limit is None else limit,), _run_record
    )


def run_of_plan(path: Path, spec_digest: str, observation_digest: str) -> RunRecord | None:
    """The newest run of one plan that came to its end; None where none is known. Raises JournalUnreadable."""
    found = _told(
        path,
        f"{_RUNS} WHERE spec_digest = ? AND observation_digest = ? AND outcome = 'done' ORDER BY started DESC LIMIT 1",
        (spec_digest, observation_digest),
        _run_record,
    )
    return found[0] if found else None


def run_steps(path: Path, run: str) -> tuple[RunDetail, list[StepRecord]] | None:
    """A run whose id begins so, with its steps in order; None where there is none, or several. Raises JournalUnreadable."""
    rows = _told(
        path,
        "SELECT id, started, finished, who, outcome, error, spec_digest, observation_digest FROM run "
        "WHERE substr(id, 1, length(?1)) = ?1 ORDER BY length(id) LIMIT 2",
        (run,),
        lambda row: RunDetail(_run_record(tuple(row)[:6]), str(row[6]), str(row[7])),
    )
    exact = [row for row in rows if row.record.id == run] or rows
    if len(exact) != 1:
        return None
    steps = "SELECT step, started, finished, outcome, detail FROM step WHERE run = ? ORDER BY started, rowid"
    return exact[0], _told(path, steps, (exact[0].record.id,), _step_record)


def _step_record(row: Sequence[Any]) -> StepRecord:
    step, started, finished, outcome, detail = row
    ended = None if finished is None else moment(finished)
    return StepRecord(str(step), moment(started), ended, outcome and str(outcome), detail and str(detail))


def _told(path: Path, query: str, values: tuple[Any, ...], make: Callable[[Any], T]) -> list[T]:
    if (why := problem(path)) is not None:
        raise unreadable(Journal.TITLE, path, why)
    try:
        with open_read_only(path) as db:
            if db is None or not db.execute("PRAGMA user_version").fetchone()[0]:
                return []
            return [make(row) for row in db.execute(query, values)]
    except UNREADABLE as error:
        raise unreadable(Journal.TITLE, path, str(error)) from error


def holder(path: Path) -> Holder | None:
    """Who holds the lease now; None where nobody does. Raises JournalUnreadable."""
    query = "SELECT owner, host, pid, process, acquired, expires, fence FROM lease"
    held = (found for found in _told(path, query, (), _held) if found is not None)
    return next(held, None)


def _held(row: Sequence[Any]) -> Holder | None:
    owner, host, pid, process, since, expires, fence = row
    found = Holder(
        str(owner), str(host), int(pid), str(process), moment(since), float(expires) - TTL_S, int(fence)
    )
    return found if is_held(found.host, found.pid, found.process, found.beat + TTL_S) else None


def open_pauses(path: Path) -> list[str]:
    """Databases whose pause a killed run left open."""
    try:
        with open_read_only(path) as db:
            return (
                [str(row[0]) for row in db.execute("SELECT database FROM pause ORDER BY database")]
                if db
                else []
            )
    except UNREADABLE:
        return []


def begun_switches(path: Path) -> dict[str, list[str]]:
    """By database, the migrations that were marked as switched to before a run came to say so in the registry."""
    found: dict[str, list[str]] = {}
    try:
        with open_read_only(path) as db:
            rows = db.execute("SELECT database, migration FROM switching ORDER BY migration") if db else ()
            for database, migration in rows:
                found.setdefault(database, []).append(migration)
    except UNREADABLE:
        return {}
    return found


def is_running(path: Path) -> bool:
    """Whether an apply holds the lease right now."""
    try:
        with open_read_only(path) as db:
            row = db.execute("SELECT host, pid, process, expires FROM lease").fetchone() if db else None
        return row is not None and is_held(*row)
    except UNREADABLE:
        return False


def progress(path: Path) -> dict[str, ProgressRecord]:
    """How far each database's newest migration came, by database; empty when the journal cannot be read."""
    try:
        with open_read_only(path) as db:
            rows = db.execute(_PROGRESS).fetchall() if db else []
        return {row["database"]: _progress_record(row) for row in rows}
    except UNREADABLE:
        return {}


def _progress_record(row: sqlite3.Row) -> ProgressRecord:
    told = dict(row)
    # A journal that no run of this version has written yet has no streams.
    streams = json.loads(told.pop("streams", "[]"))
    found = checked(ProgressRecord, {**told, "streams": streams})
    told_of: list[ProgressRecord | StreamProgress] = [found, *found.streams]
    rates = [number for each in told_of for number in (each.rate, each.eta_s)]
    if not all(math.isfinite(number) for number in rates if number is not None):
        raise ValueError("a rate that is no number")
    return replace(found, at=moment(found.at))


def known_counts(path: Path, folder: str) -> Mapping[str, tuple[str, int]]:
    """`model.ports.KnownCounts` of one journal; empty when it cannot be read."""
    try:
        with open_read_only(path) as db:
            statement = "SELECT namespace, identity, records FROM counted WHERE folder = ?"
            rows = db.execute(statement, (folder,)).fetchall() if db else []
        return {str(namespace): (str(identity), int(records)) for namespace, identity, records in rows}
    except UNREADABLE:
        return {}
