"""A file of state: SQLite in WAL mode, its schema versioned and migrated, mode 0600. Nothing here knows what it holds.

Before its schema is migrated a copy is kept beside it (`journal.db.schema-4`), and the migration is one transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.failpoints import Point, failpoint

PATIENCE_S = 10.0
NO_FILE = "it is no file"
COPIES = 3
"""Of earlier schemas that are kept."""
Self = TypeVar("Self", bound="StateFile")


class JournalUnreadable(HybridragError):
    """A file of state is damaged or from a newer version (exit 1)."""

    code = "journal_unreadable"


class StateBusy(BackendUnavailable):
    """Another process holds the file longer than any transaction takes (exit 4)."""


class StateFile:
    """Open for writing. Use as a context manager."""

    VERSIONS: ClassVar[tuple[str, ...]]
    """What each schema version added to the one before."""
    TITLE: ClassVar[str]

    def __init__(self, path: Path) -> None:
        """Raises JournalUnreadable for a damaged file and one of a newer version, BackendUnavailable where none can be."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._opened = _made(path)
        except OSError as error:
            raise BackendUnavailable(
                f'the {self.TITLE} "{path}" cannot be opened for writing: {error.strerror or error}',
                hint="make the state folder writable, or name another one with --state",
            ) from error
        self._guard = threading.RLock()  # the lease's thread shares the connection
        with self._in_words():
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=PATIENCE_S, check_same_thread=False
            )
        try:
            with self._in_words():
                self._enter_wal()
                self._db.execute("PRAGMA synchronous = FULL")
                self._migrate()
        except BaseException:
            self._db.close()
            raise

    @property
    def identity(self) -> str | None:
        """Names this file among all others, where targets of its runs are to know it."""
        return None

    def in_place(self) -> bool:
        """Whether the file under our path is still the one that was opened."""
        try:
            return os.path.samestat(self.path.stat(), self._opened)
        except OSError:
            return False

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
            if 0 < version < len(self.VERSIONS):
                self._keep_copy(version)
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

    def _keep_copy(self, version: int) -> None:
        """Keep the file as it is beside itself. Called inside the transaction that changes it: nobody writes meanwhile."""
        kept = self.path.with_name(f"{self.path.name}.schema-{version}")
        new = kept.with_name(f".{kept.name}.new")
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with (
            contextlib.closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as source,
            contextlib.closing(sqlite3.connect(new)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
        new.replace(kept)
        copies = self.path.parent.glob(f"{self.path.name}.schema-*")
        for older in sorted(copies, key=lambda each: each.stat().st_mtime, reverse=True)[COPIES:]:
            older.unlink(missing_ok=True)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction; rolled back on any exception.

        Raises BackendUnavailable on a full disk, StateBusy where another process does not let go, JournalUnreadable
        for a damaged file.
        """
        with self._guard, self._in_words():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                failpoint(Point.JOURNAL_BEFORE)
                self._db.execute("COMMIT")
                failpoint(Point.JOURNAL_AFTER)
            except BaseException:
                if self._db.in_transaction:  # SQLite itself may have rolled it back
                    with contextlib.suppress(sqlite3.Error):  # of a damaged file not even that
                        self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For one statement that only reads: it sees what is committed, and waits for nobody's transaction."""
        with self._guard, self._in_words():
            yield self._db

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self.TITLE, self.path, error) from error
        # Of a damaged file even SQLite's own message may be no text.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> HybridragError:
        told = str(error)
        if "is locked" in told:
            return StateBusy(
                f'the {self.TITLE} "{self.path}" is held by another process, which does not let go',
                hint="hybridrag status shows who runs; if it is stopped, let it go on or end it, then try again",
            )
        # A full disk is also met while SQLite extends a file it has mapped, as an I/O error.
        if isinstance(error, sqlite3.OperationalError) and any(
            words in told for words in ("is full", "disk I/O")
        ):
            return unwritable(self.TITLE, self.path, error)
        return unreadable(self.TITLE, self.path, error)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()


def _made(path: Path) -> os.stat_result:
    """The file, with mode 0600 from its first moment; SQLite's side files take the mode of the file.

    One that is there is never opened here: closing it again would drop every lock that this process has on it, and
    somebody else would take SQLite's log away below us.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(NO_FILE)
    if stat.S_IMODE(found.st_mode) != 0o600:
        path.chmod(0o600)
    return found


def unwritable(title: str, path: Path, error: Exception) -> BackendUnavailable:
    """A full or failing disk, or a folder that lets nobody write, in words."""
    reason = getattr(error, "strerror", None) or str(error)
    return BackendUnavailable(
        f'the {title} "{path}" cannot be written: {reason.lower()}',
        hint="free space there, then run hybridrag apply: it goes on from the checkpoint"
        if "full" in reason or "I/O" in reason or "space" in reason
        else "check the folder and its permissions, then run hybridrag apply",
    )


def unreadable(title: str, path: Path, error: object) -> JournalUnreadable:
    return JournalUnreadable(
        f'the {title} "{path}" cannot be used: {error}',
        where=str(path),
        hint="move the file away (history is lost, nothing else), then run hybridrag plan",
    )
