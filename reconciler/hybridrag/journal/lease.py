"""The lease: one apply at a time for an environment, given back by a kill without anybody's help.

It expires by itself, and at once when its holder was a process of this machine that no longer lives. Every
acquisition has a larger fencing number than the one before, and an earlier holder that wakes up is refused wherever it
writes (`model.fence`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import HybridragError, LeaseHeld
from hybridrag.model.fence import CURRENT, Fence

from .state_file import StateFile, unreadable

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


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease: since when and with which last heartbeat (seconds since 1970), under which fencing number."""

    owner: str
    host: str
    pid: int
    process: str
    since: float
    beat: float
    fence: int

    @property
    def lives_here(self) -> bool:
        """Whether it is a process of this machine, and there still."""
        return self.host == socket.gethostname() and _alive(self.pid, self.process)

    @property
    def stopped(self) -> bool:
        """Whether that process was stopped by a signal (SIGSTOP, Ctrl-Z)."""
        return self.lives_here and _status(self.pid)[0] in ("T", "t")


def _when_it_ends(left: float) -> str:
    """The hint for who finds a lease that holds for `left` more seconds by this machine's clock."""
    if left <= TTL_S + BEAT_S:
        return f"wait for it; if it is dead, the lease ends by itself within {TTL_S:.0f} s"
    return (
        f"its last heartbeat lies {left - TTL_S:,.0f} s in the future: this machine's clock was set back, or the other's is "
        "ahead; set them right; if that run is dead, hybridrag unlock takes the lease away"
    )


def take_away(journal: StateFile, holder: Holder, who: str) -> None:
    """End somebody's lease. The holder is refused wherever it writes from now on. Raises LeaseHeld when it changed hands."""
    with journal.transaction() as db:
        changed = db.execute(
            "UPDATE lease SET owner = ?, expires = 0, fence = fence + 1 WHERE fence = ? AND owner = ?",
            (who, holder.fence, holder.owner),
        ).rowcount
        if not changed:
            raise LeaseHeld(
                "the lease went to another run meanwhile; nothing was changed", hint="hybridrag status"
            )


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
        self._shown: Fence | None = None
        self.fence = 0
        self.lost = False

    def __enter__(self) -> Lease:
        now = time.time()
        host, pid = socket.gethostname(), os.getpid()
        with self._journal.transaction() as db:
            row = db.execute(
                "SELECT owner, host, pid, process, acquired, expires, fence FROM lease"
            ).fetchone()
            try:
                held = row is not None and is_held(row[1], row[2], row[3], row[5])
                self.fence = (int(row[6]) if row else 0) + 1
                since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row[4])) if held else ""
            except (TypeError, ValueError, OverflowError, OSError) as error:
                raise unreadable(self._journal.TITLE, self._journal.path, error) from error
            if held:
                raise LeaseHeld(
                    f"{self._taken}: {row[0]} (pid {row[2]} on {row[1]}), since {since}",
                    hint=_when_it_ends(row[5] - now),
                )
            db.execute(
                "INSERT OR REPLACE INTO lease (id, owner, host, pid, process, acquired, expires, fence) "
                "VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
                (self._owner, host, pid, process_mark(pid), now, now + TTL_S, self.fence),
            )
        if (state := self._journal.identity) is not None:
            self._shown = Fence(state, self.fence, self.check, self.guard)
            CURRENT.set(self._shown)
        self._thread.start()
        return self

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                with self._journal.transaction() as db:
                    changed = db.execute(
                        "UPDATE lease SET expires = ? WHERE fence = ?", (time.time() + TTL_S, self.fence)
                    ).rowcount
            except (sqlite3.Error, HybridragError):
                changed = 0  # a lease that cannot be renewed is as good as lost
            if not changed:
                self.lost = True
                return

    def overtaken(self) -> LeaseHeld | None:
        """In words that somebody else took the lease, or that its file is another one now; None while it is ours."""
        try:
            with self._journal.reading() as db:
                row = db.execute("SELECT fence, owner FROM lease").fetchone()
        except (sqlite3.Error, HybridragError):
            return self._not_kept()
        if not self._journal.in_place():
            return LeaseHeld(
                f'"{self._journal.path.name}" was removed or replaced while this {self._name} ran; it writes nothing any more',
                where=str(self._journal.path),
                hint="hybridrag plan shows what is done and what is left",
            )
        if row is None or row[0] != self.fence:
            return LeaseHeld(
                f"this {self._name} was taken over by {row[1] if row else 'somebody'} while it slept, or was unlocked; "
                "it writes nothing any more",
                hint="hybridrag status shows who runs; hybridrag plan what is left",
            )
        return None

    def _not_kept(self) -> LeaseHeld:
        return LeaseHeld(
            f"this {self._name} could not keep its lease (it slept too long, or the state folder cannot be written)",
            hint="run hybridrag plan",
        )

    def check(self) -> None:
        """Raise LeaseHeld when the lease was taken over (we were asleep too long)."""
        if (error := self.overtaken()) is not None:
            raise error
        if self.lost:
            raise self._not_kept()

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """While open nobody can take the lease. Raises LeaseHeld when somebody did."""
        with self._journal.transaction():
            self.check()
            yield

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2)
        if self._shown is not None and CURRENT.get() is self._shown:
            CURRENT.set(None)
        if not self.lost:
            with self._journal.transaction() as db:
                # The row stays, expired, so that the next fencing number is larger.
                db.execute("UPDATE lease SET expires = 0 WHERE fence = ?", (self.fence,))
