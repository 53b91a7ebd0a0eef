"""Read the journal without writing: no file is created or changed, not even SQLite's side files."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One apply of the past, or the running one (outcome None). Times are seconds since 1970."""

    id: str
    started: float
    finished: float | None
    who: str
    outcome: str | None
    error: str | None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection | None]:
    if not path.is_file():
        yield None
        return
    wal = path.with_name(path.name + "-wal")
    live = wal.exists() and wal.stat().st_size > 0
    # Without a live log the file alone is the truth; with one, its index is mapped but never written.
    mode = "mode=ro&readonly_shm=1" if live else "immutable=1"
    db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=2)
    try:
        yield db
    finally:
        db.close()


def last_run(path: Path) -> RunRecord | None:
    """The newest run; None when there is none or the journal cannot be read (it only informs)."""
    try:
        with _open(path) as db:
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
        with _open(path) as db:
            return (
                [row[0] for row in db.execute("SELECT database FROM pause ORDER BY database")] if db else []
            )
    except sqlite3.Error:
        return []
