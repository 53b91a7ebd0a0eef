"""The journal: SQLite in WAL mode below the environment's state folder.

It adds what observing cannot give: runs and their steps, the lease, digests of a source, and that we hold a
pause. Deleting it loses history and time, never correctness.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.room import Room

SCHEMA_VERSION = 1
PATIENCE_S = 10.0
_DDL = """
CREATE TABLE lease (
    id INTEGER PRIMARY KEY CHECK (id = 1), owner TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    process TEXT NOT NULL, acquired REAL NOT NULL, expires REAL NOT NULL, fence INTEGER NOT NULL);
CREATE TABLE run (
    id TEXT PRIMARY KEY, started REAL NOT NULL, finished REAL, who TEXT NOT NULL, spec_digest TEXT NOT NULL,
    observation_digest TEXT NOT NULL, outcome TEXT, error TEXT);
CREATE TABLE step (
    run TEXT NOT NULL REFERENCES run (id), step TEXT NOT NULL, started REAL NOT NULL, finished REAL,
    outcome TEXT, detail TEXT, PRIMARY KEY (run, step));
CREATE TABLE source_digest (
    migration TEXT NOT NULL, namespace TEXT NOT NULL, buckets BLOB NOT NULL, PRIMARY KEY (migration, namespace));
CREATE TABLE pause (
    database TEXT PRIMARY KEY, run TEXT NOT NULL, fingerprint TEXT, opened REAL NOT NULL);
"""


class JournalUnreadable(HybridragError):
    """The journal file is damaged or from a newer version (exit 1)."""

    code = "journal_unreadable"


class Journal:
    """One environment's journal, open for writing. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S, check_same_thread=False)
        self._guard = threading.RLock()  # the lease's thread shares the connection
        try:
            with self._telling_of_a_full_disk():
                self._enter_wal()
                self._db.execute("PRAGMA synchronous = FULL")
                self._migrate()
            path.chmod(0o600)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise unreadable(path, error) from None
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
            if version > SCHEMA_VERSION:
                raise JournalUnreadable(
                    f'the journal "{self.path}" was written by a newer hybridrag (schema {version})',
                    hint="upgrade hybridrag, or move the file away (history is lost, nothing else)",
                )
            if version == 0:
                for statement in _DDL.split(";"):
                    if statement.strip():
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction; rolled back on any exception. Raises BackendUnavailable on a full disk."""
        with self._guard, self._telling_of_a_full_disk():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself may have rolled it back
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _telling_of_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            # A full disk is also met while SQLite extends a file it has mapped, as an I/O error.
            if "is full" not in str(error) and "disk I/O" not in str(error):
                raise
            raise BackendUnavailable(
                f'the journal "{self.path}" cannot be written: {error}',
                hint="free space there, then run hybridrag apply: it goes on from the checkpoint",
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def room(self) -> Room | None:
        return Room.holding(self.path.parent)

    # --- runs ---

    def begin_run(self, run: str, who: str, spec_digest: str, observation_digest: str) -> None:
        with self.transaction() as db:
            # A run without an end was killed; say so once somebody else holds the lease.
            db.execute(
                "UPDATE run SET outcome = 'killed', finished = ? WHERE outcome IS NULL", (time.time(),)
            )
            db.execute(
                "INSERT INTO run (id, started, who, spec_digest, observation_digest) VALUES (?, ?, ?, ?, ?)",
                (run, time.time(), who, spec_digest, observation_digest),
            )

    def end_run(self, run: str, outcome: str, error: str | None) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE run SET finished = ?, outcome = ?, error = ? WHERE id = ?",
                (time.time(), outcome, error, run),
            )

    def begin_step(self, run: str, step: str) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO step (run, step, started) VALUES (?, ?, ?)", (run, step, time.time())
            )

    def end_step(self, run: str, step: str, outcome: str, detail: str) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE step SET finished = ?, outcome = ?, detail = ? WHERE run = ? AND step = ?",
                (time.time(), outcome, detail, run, step),
            )

    # --- digests of a source ---

    def put_digests(self, migration: str, tables: dict[str, bytes]) -> None:
        """Keep what one pass over a source found."""
        with self.transaction() as db:
            db.execute("DELETE FROM source_digest WHERE migration = ?", (migration,))
            db.executemany(
                "INSERT INTO source_digest (migration, namespace, buckets) VALUES (?, ?, ?)",
                [(migration, namespace, buckets) for namespace, buckets in tables.items()],
            )

    def digests(self, migration: str) -> dict[str, bytes]:
        with self.transaction() as db:
            rows = db.execute(
                "SELECT namespace, buckets FROM source_digest WHERE migration = ?", (migration,)
            )
            return {namespace: bytes(buckets) for namespace, buckets in rows}

    def drop_digests(self, migration: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM source_digest WHERE migration = ?", (migration,))

    # --- pauses ---

    def open_pause(self, database: str, run: str, fingerprint: str | None) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO pause (database, run, fingerprint, opened) VALUES (?, ?, ?, ?)",
                (database, run, fingerprint, time.time()),
            )

    def pause_of(self, database: str) -> tuple[str, str | None] | None:
        """(run, fingerprint of the source) of an open pause."""
        with self.transaction() as db:
            row = db.execute("SELECT run, fingerprint FROM pause WHERE database = ?", (database,)).fetchone()
        return (row[0], row[1]) if row else None

    def close_pause(self, database: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM pause WHERE database = ?", (database,))


def unreadable(path: Path, error: Exception) -> JournalUnreadable:
    return JournalUnreadable(
        f'the journal "{path}" cannot be used: {error}',
        where=str(path),
        hint="move the file away (history is lost, nothing else), then run hybridrag plan",
    )
