"""The lease: one apply at a time for an environment, given back by a kill without anybody's help.

It expires by itself, and at once when its holder was a process of this machine that no longer lives. Every
acquisition has a larger fencing number than the one before.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from pathlib import Path

from hybridrag.errors import BackendUnavailable, LeaseHeld

from .state_file import StateFile

TTL_S = 30.0
BEAT_S = 5.0


def _status(pid: int) -> tuple[str, str]:
    """(state, start time) of a process; empty where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""


def process_mark(pid: int) -> str:
    """Tells a process from a later one with the same pid; empty where the system does not say."""
    return _status(pid)[1]


def _alive(pid: int, mark: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, now = _status(pid)
    # A killed process whose parent never asks for it (pid 1 of many containers) stays a zombie.
    return state not in ("Z", "X") and (not mark or now in (mark, ""))


def is_held(host: str, pid: int, mark: str, expires: float) -> bool:
    """Whether a lease with these columns still holds."""
    return expires > time.time() and not (host == socket.gethostname() and not _alive(pid, mark))


class Lease:
    """Held inside a `with` block; a thread keeps it fresh. Raises LeaseHeld when somebody else has it.

    `taken` says what that means, `name` what holds it.
    """

    def __init__(
        self,
        journal: StateFile,
        owner: str,
        *,
        taken: str = "another apply runs on this environment",
        name: str = "apply",
    ) -> None:
        self._journal = journal
        self._owner = owner
        self._taken = taken
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hybridrag-lease", daemon=True)
        self.fence = 0
        self.lost = False

    def __enter__(self) -> Lease:
        now = time.time()
        host, pid = socket.gethostname(), os.getpid()
        with self._journal.transaction() as db:
            row = db.execute(
                "SELECT owner, host, pid, process, acquired, expires, fence FROM lease"
            ).fetchone()
            if row and is_held(row[1], row[2], row[3], row[5]):
                raise LeaseHeld(
                    f"{self._taken}: {row[0]} (pid {row[2]} on {row[1]}), "
                    f"since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(row[4]))}",
                    hint=f"wait for it; if it is dead, the lease ends by itself within {TTL_S:.0f} s",
                )
            self.fence = (row[6] if row else 0) + 1
            db.execute(
                "INSERT OR REPLACE INTO lease (id, owner, host, pid, process, acquired, expires, fence) "
                "VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
                (self._owner, host, pid, process_mark(pid), now, now + TTL_S, self.fence),
            )
        self._thread.start()
        return self

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                with self._journal.transaction() as db:
                    changed = db.execute(
                        "UPDATE lease SET expires = ? WHERE fence = ?", (time.time() + TTL_S, self.fence)
                    ).rowcount
            except (sqlite3.Error, BackendUnavailable):
                changed = 0  # a lease that cannot be renewed is as good as lost
            if not changed:
                self.lost = True
                return

    def check(self) -> None:
        """Raise LeaseHeld when the lease was taken over (we were asleep too long)."""
        if self.lost:
            raise LeaseHeld(
                f"this {self._name} could not keep its lease (it slept too long, or the state folder cannot be written)",
                hint="run hybridrag plan",
            )

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2)
        if not self.lost:
            with self._journal.transaction() as db:
                # The row stays, expired, so that the next fencing number is larger.
                db.execute("UPDATE lease SET expires = 0 WHERE fence = ?", (self.fence,))
