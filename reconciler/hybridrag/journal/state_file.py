"""A file of state: SQLite in WAL mode, its schema versioned and migrated, mode 0600. Nothing here knows what it holds."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.failpoints import Point, failpoint

PATIENCE_S = 10.0
Self = TypeVar("Self", bound="StateFile")


class JournalUnreadable(HybridragError):
    """A file of state is damaged or from a newer version (exit 1)."""

    code = "journal_unreadable"


class StateFile:
    """Open for writing. Use as a context manager."""

    VERSIONS: ClassVar[tuple[str, ...]]
    """What each schema version added to the one before."""
    TITLE: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._telling_of_a_full_disk():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=PATIENCE_S, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            raise unwritable(self.TITLE, path, error) from error
        self._guard = threading.RLock()  # the lease's thread shares the connection
        try:
            with self._telling_of_a_full_disk():
                self._enter_wal()
                self._db.execute("PRAGMA synchronous = FULL")
                self._migrate()
            path.chmod(0o600)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise unreadable(self.TITLE, path, error) from None
        except (JournalUnreadable, BackendUnavailable):
            self._db.close()
            raise

    def _enter_wal(self) -> None:
        """SQLite does not wait by itself while another process makes the same new file a WAL one."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _migrate(self) -> None:
        with self.transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(self.VERSIONS):
                raise JournalUnreadable(
                    f'the {self.TITLE} "{self.path}" was written by a newer hybridrag (schema {version})',
                    hint="upgrade hybridrag, or move the file away (history is lost, nothing else)",
                )
            for added in self.VERSIONS[version:]:
                for statement in added.split(";"):
                    if statement.strip():
                        db.execute(statement)
            if version < len(self.VERSIONS):
                db.execute(f"PRAGMA user_version = {len(self.VERSIONS)}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction; rolled back on any exception. Raises BackendUnavailable on a full disk."""
        with self._guard, self._telling_of_a_full_disk():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                failpoint(Point.JOURNAL_BEFORE)
                self._db.execute("COMMIT")
                failpoint(Point.JOURNAL_AFTER)
            except BaseException:
                if self._db.in_transaction:  # SQLite itself may have rolled it back
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For one statement that only reads: it sees what is committed, and waits for nobody's transaction."""
        with self._guard:
            yield self._db

    @contextlib.contextmanager
    def _telling_of_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self.TITLE, self.path, error) from error
        except sqlite3.OperationalError as error:
            # A full disk is also met while SQLite extends a file it has mapped, as an I/O error.
            if "is full" not in str(error) and "disk I/O" not in str(error):
                raise
            raise unwritable(self.TITLE, self.path, error) from error

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()


def unwritable(title: str, path: Path, error: Exception) -> BackendUnavailable:
    """A full or failing disk, or a folder that lets nobody write, in words."""
    reason = getattr(error, "strerror", None) or str(error)
    return BackendUnavailable(
        f'the {title} "{path}" cannot be written: {reason.lower()}',
        hint="free space there, then run hybridrag apply: it goes on from the checkpoint"
        if "full" in reason or "I/O" in reason or "space" in reason
        else "check the folder and its permissions, then run hybridrag apply",
    )


def unreadable(title: str, path: Path, error: Exception) -> JournalUnreadable:
    return JournalUnreadable(
        f'the {title} "{path}" cannot be used: {error}',
        where=str(path),
        hint="move the file away (history is lost, nothing else), then run hybridrag plan",
    )
