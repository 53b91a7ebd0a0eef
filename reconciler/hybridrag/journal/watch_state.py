"""What a watching daemon and the reconciler tell each other about one database, and what the daemon remembers.

The pause protocol: the reconciler asks (`ask_pause`) and keeps its request fresh; the daemon drains, ends the process
that writes, and acknowledges; from then on it may write only after `may_write` has found no request that still holds,
in the same transaction in which it says that it writes again. A request of a dead or silent reconciler holds no more.
`sealed` keeps every other party out of this file while the pointer changes, and refuses when the request had lapsed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import PlanRefused

from .database import LEASE_TABLE
from .lease import TTL_S, is_held, process_mark
from .state_file import StateFile

_FIRST = f"""
{LEASE_TABLE}
CREATE TABLE pause (
    owner TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, process TEXT NOT NULL, asked REAL NOT NULL,
    expires REAL, acknowledged REAL);
CREATE TABLE activity (
    id INTEGER PRIMARY KEY CHECK (id = 1), state TEXT NOT NULL, detail TEXT NOT NULL, since REAL NOT NULL,
    at REAL NOT NULL, backend TEXT, queued INTEGER NOT NULL, ingested INTEGER NOT NULL, failed INTEGER NOT NULL,
    last_error TEXT);
CREATE TABLE size (at REAL NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE INDEX size_by_time ON size (at);
CREATE TABLE rate (at REAL NOT NULL, documents INTEGER NOT NULL, characters INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE warned (subject TEXT PRIMARY KEY, value REAL NOT NULL, at REAL NOT NULL);
"""
BY_HAND = "user"
"""Owner of a pause that a person asked for; it holds until it is lifted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What a daemon is doing. `state`: starting, ingesting, idle, paused, waiting, stopped; counts since it started."""

    state: str
    detail: str = ""
    backend: str | None = None
    queued: int = 0
    ingested: int = 0
    failed: int = 0
    last_error: str | None = None


def watch_path(state: Path, database: str) -> Path:
    """Where a database's file is, below its environment's state folder."""
    return state / "watch" / f"{database}.db"


class WatchState(StateFile):
    """Open for writing, by the daemon or by whoever asks it to pause."""

    VERSIONS = (_FIRST,)
    TITLE = "watcher's state"

    # --- pause ---

    def ask_pause(self, owner: str, *, ttl_s: float | None = TTL_S) -> None:
        """Ask, or ask anew. `ttl_s` None: until it is lifted."""
        now = time.time()
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO pause (owner, host, pid, process, asked, expires) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    owner,
                    socket.gethostname(),
                    os.getpid(),
                    process_mark(os.getpid()),
                    now,
                    None if ttl_s is None else now + ttl_s,
                ),
            )

    def renew_pause(self, owner: str, *, ttl_s: float = TTL_S) -> bool:
        """Keep a request fresh; False when it had lapsed, which nothing can undo."""
        with self.transaction() as db:
            renewed = db.execute(
                "UPDATE pause SET expires = ? WHERE owner = ? AND expires > ?",
                (time.time() + ttl_s, owner, time.time()),
            )
            return renewed.rowcount > 0

    def lift_pause(self, owner: str) -> bool:
        """Take a request back; False when there was none."""
        with self.transaction() as db:
            return db.execute("DELETE FROM pause WHERE owner = ?", (owner,)).rowcount > 0

    def acknowledge(self) -> None:
        """Say to everybody who asks for a pause that nothing is written any more."""
        with self.transaction() as db:
            db.execute("UPDATE pause SET acknowledged = ? WHERE acknowledged IS NULL", (time.time(),))

    def is_acknowledged(self, owner: str) -> bool:
        with self.reading() as db:
            row = db.execute("SELECT acknowledged FROM pause WHERE owner = ?", (owner,)).fetchone()
        return row is not None and row[0] is not None

    def pauses(self) -> dict[str, bool]:
        """Owners of the requests that hold, and whether each was acknowledged. Never waits for who writes here."""
        with self.reading() as db:
            return _holding(db)

    def may_write(self, activity: Activity) -> bool:
        """Whether no pause holds; if so, `activity` is what the daemon does from now on, and lapsed requests are gone."""
        with self.transaction() as db:
            if _holding(db):
                return False
            db.execute("DELETE FROM pause")
            _put_activity(db, activity)
            return True

    @contextlib.contextmanager
    def sealed(self, owner: str) -> Iterator[None]:
        """While open nobody can lift the pause, ask for one, or begin to write. Raises PlanRefused where it had lapsed."""
        with self.transaction() as db:
            row = db.execute("SELECT expires, acknowledged FROM pause WHERE owner = ?", (owner,)).fetchone()
            if row is None or row[1] is None or (row[0] is not None and row[0] <= time.time()):
                raise PlanRefused(
                    "the writer's pause ran out before the switch (this run slept too long); nothing was switched",
                    hint="run hybridrag apply again",
                )
            yield

    # --- what the daemon does ---

    def put_activity(self, activity: Activity) -> None:
        with self.transaction() as db:
            _put_activity(db, activity)

    # --- what it remembers ---

    def put_sizes(self, sizes: Mapping[str, int], *, keep_s: float = 30 * 86400) -> None:
        """Remember the sizes of a database's files, bytes by name, as of now; older ones than `keep_s` are forgotten."""
        now = time.time()
        with self.transaction() as db:
            db.execute("DELETE FROM size WHERE at < ?", (now - keep_s,))
            db.executemany(
                "INSERT INTO size (at, file, bytes) VALUES (?, ?, ?)",
                [(now, name, size) for name, size in sizes.items()],
            )

    def sizes(self) -> list[tuple[float, str, int]]:
        """(time, file, bytes), oldest first."""
        with self.transaction() as db:
            return db.execute("SELECT at, file, bytes FROM size ORDER BY at").fetchall()

    def put_rate(self, documents: int, characters: int, seconds: float, *, keep: int = 500) -> None:
        """Remember how fast one cycle was; the newest `keep` stay."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO rate (at, documents, characters, seconds) VALUES (?, ?, ?, ?)",
                (time.time(), documents, characters, seconds),
            )
            db.execute(
                "DELETE FROM rate WHERE rowid NOT IN (SELECT rowid FROM rate ORDER BY at DESC LIMIT ?)",
                (keep,),
            )

    def rates(self) -> list[tuple[float, int, int, float]]:
        """(time, documents, characters, seconds) of each cycle, oldest first."""
        with self.transaction() as db:
            return db.execute("SELECT at, documents, characters, seconds FROM rate ORDER BY at").fetchall()

    def warned(self) -> dict[str, tuple[float, float]]:
        """(value, time) of what was warned about, by subject."""
        with self.transaction() as db:
            rows = db.execute("SELECT subject, value, at FROM warned")
            return {subject: (value, at) for subject, value, at in rows}

    def put_warned(self, subject: str, value: float) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO warned (subject, value, at) VALUES (?, ?, ?)",
                (subject, value, time.time()),
            )

    def drop_warned(self, subject: str) -> None:
        """It is well again: the next time is a first time."""
        with self.transaction() as db:
            db.execute("DELETE FROM warned WHERE subject = ?", (subject,))


def _holding(db: sqlite3.Connection) -> dict[str, bool]:
    rows = db.execute(
        "SELECT owner, host, pid, process, expires, acknowledged FROM pause ORDER BY asked"
    ).fetchall()
    return {row[0]: row[5] is not None for row in rows if row[4] is None or is_held(*row[1:5])}


def _put_activity(db: sqlite3.Connection, activity: Activity) -> None:
    now = time.time()
    before = db.execute("SELECT state, since FROM activity").fetchone()
    since = before[1] if before and before[0] == activity.state else now
    db.execute(
        "INSERT OR REPLACE INTO activity (id, state, detail, since, at, backend, queued, ingested, failed, last_error) "
        "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            activity.state, activity.detail, since, now, activity.backend, activity.queued, activity.ingested,
            activity.failed, activity.last_error,
        ),
    )  # fmt: skip


class WriterLock:
    """Held by a daemon and, inherited, by the process in which its LightRAG writes: gone only when both are.

    `fd` is what a child process inherits. Taking it proves that no process of a dead daemon writes any more.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """False while somebody holds it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Give it back, as far as this process holds it."""
        os.close(self.fd)
