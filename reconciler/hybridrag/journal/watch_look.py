"""Look at a watching daemon without writing: no file is created or changed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .columns import checked, moment
from .lease import is_held
from .reading import UNREADABLE, open_read_only
from .watch_state import Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLook:
    """A daemon as it is seen from outside. Times are seconds since 1970; `pauses` are the owners of those that hold.

    `running` is None where the file cannot be read. `sizes` are (time, file, bytes), oldest first; `warned` is what
    was last warned about, by subject.
    """

    running: bool | None
    owner: str | None = None
    host: str | None = None
    pid: int | None = None
    since: float | None = None
    activity: Activity | None = None
    at: float | None = None
    pauses: tuple[str, ...] = ()
    acknowledged: bool = False
    sizes: tuple[tuple[float, str, int], ...] = ()
    warned: Mapping[str, float] = field(default_factory=dict)


def look_at_watcher(path: Path) -> WatchLook | None:
    """None where there never was one."""
    try:
        with open_read_only(path) as db:
            return None if db is None else _look(db)
    except UNREADABLE:
        return WatchLook(running=None)


def _look(db: sqlite3.Connection) -> WatchLook:
    lease = db.execute("SELECT owner, host, pid, process, expires, acquired FROM lease").fetchone()
    row = db.execute(
        "SELECT state, detail, backend, queued, ingested, failed, last_error, at FROM activity"
    ).fetchone()
    pauses = [
        pause
        for pause in db.execute(
            "SELECT owner, host, pid, process, expires, acknowledged FROM pause ORDER BY asked"
        )
        if pause[4] is None or is_held(*pause[1:5])
    ]
    running = lease is not None and is_held(*lease[1:5])
    names = ("state", "detail", "backend", "queued", "ingested", "failed", "last_error")
    sizes = db.execute(
        "SELECT at, file, bytes FROM size WHERE at > ? ORDER BY at", (time.time() - 30 * 86400,)
    )
    return checked(
        WatchLook,
        {
            "running": running,
            "owner": lease[0] if running else None,
            "host": lease[1] if running else None,
            "pid": lease[2] if running else None,
            "since": moment(lease[5]) if running else None,
            "activity": None if row is None else dict(zip(names, row, strict=False)),
            "at": moment(row[7]) if row else None,
            "pauses": tuple(pause[0] for pause in pauses),
            "acknowledged": bool(pauses) and all(pause[5] is not None for pause in pauses),
            "sizes": [tuple(size) for size in sizes],
            "warned": dict(map(tuple, db.execute("SELECT subject, value FROM warned"))),
        },
    )
