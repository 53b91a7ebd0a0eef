"""The journal: SQLite in WAL mode below the environment's state folder.

It adds what observing cannot give: runs, their steps and progress, the lease, digests of a source, that we hold a
pause; and what observing gives slowly: counts of big files. Deleting it loses history and time, never correctness.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict

from hybridrag.model import fence
from hybridrag.model.data import BadRecord
from hybridrag.model.events import Progress
from hybridrag.model.findings import Refusal
from hybridrag.model.room import Room

from .quarantine import quarantine, quarantine_path
from .state_file import StateFile
from .version import tool

LEASE_TABLE = """CREATE TABLE lease (
    id INTEGER PRIMARY KEY CHECK (id = 1), owner TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    process TEXT NOT NULL, acquired REAL NOT NULL, expires REAL NOT NULL, fence INTEGER NOT NULL);"""
_FIRST = f"""
{LEASE_TABLE}
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
_COUNTS_AND_PROGRESS = """
CREATE TABLE counted (
    folder TEXT NOT NULL, namespace TEXT NOT NULL, identity TEXT NOT NULL, records INTEGER NOT NULL,
    PRIMARY KEY (folder, namespace));
CREATE TABLE progress (
    database TEXT PRIMARY KEY, run TEXT NOT NULL, step TEXT NOT NULL, phase TEXT NOT NULL, records INTEGER NOT NULL,
    total INTEGER NOT NULL, bytes INTEGER NOT NULL, rate REAL, eta_s REAL, at REAL NOT NULL);
"""
_LEFT_OUT = """
CREATE TABLE left_out (
    migration TEXT NOT NULL, namespace TEXT NOT NULL, positions BLOB NOT NULL, PRIMARY KEY (migration, namespace));
"""
_STREAMS = """
ALTER TABLE progress ADD COLUMN streams TEXT NOT NULL DEFAULT '[]';
"""
_IDENTITY = """
CREATE TABLE identity (id TEXT NOT NULL);
INSERT INTO identity VALUES (lower(hex(randomblob(8))));
"""
_SWITCHING = """
CREATE TABLE switching (migration TEXT PRIMARY KEY, database TEXT NOT NULL);
"""
_FOUND = """
CREATE TABLE refusal (
    database TEXT NOT NULL, part TEXT NOT NULL, tool TEXT NOT NULL, found TEXT NOT NULL, PRIMARY KEY (database, part));
CREATE TABLE served (
    database TEXT NOT NULL, namespace TEXT NOT NULL, records INTEGER NOT NULL, PRIMARY KEY (database, namespace));
"""
_VERSIONS = (_FIRST, _COUNTS_AND_PROGRESS, _LEFT_OUT, _STREAMS, _IDENTITY + _SWITCHING, _FOUND)
"""What each schema version added to the one before."""


class Journal(StateFile):
    """One environment's journal, open for writing. Use as a context manager."""

    VERSIONS = _VERSIONS
    TITLE = "journal"

    @property
    def identity(self) -> str:
        """Names this journal among all others; a new one has another."""
        with self.reading() as db:
            return str(db.execute("SELECT id FROM identity").fetchone()[0])

    def room(self) -> Room | None:
        return Room.holding(self.path.parent)

    @contextlib.contextmanager
    def _ours(self) -> Iterator[sqlite3.Connection]:
        """A transaction on what the next run relies on. Raises LeaseHeld when another run has taken this one over."""
        with self.transaction() as db:
            fence.check()
            yield db

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

    # --- progress, for whoever looks from another terminal ---

    def put_progress(self, database: str, run: str, progress: Progress) -> None:
        """Keep how far a database's migration is; only the newest is kept."""
        with self._ours() as db:
            db.execute(
                "INSERT OR REPLACE INTO progress (database, run, step, phase, records, total, bytes, rate, eta_s, at, "
                "streams) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    database, run, progress.step, progress.phase, progress.records, progress.total, progress.bytes,
                    progress.rate, progress.eta_s, time.time(), json.dumps([asdict(stream) for stream in progress.streams]),
                ),
            )  # fmt: skip

    # --- counts of files ---

    def put_counts(self, folder: str, counts: Mapping[str, tuple[str, int]]) -> None:
        """Keep exact counts of a folder's files: namespace -> (identity of the counted file, records)."""
        with self._ours() as db:
            db.execute("DELETE FROM counted WHERE folder = ?", (folder,))
            db.executemany(
                "INSERT INTO counted (folder, namespace, identity, records) VALUES (?, ?, ?, ?)",
                [(folder, namespace, identity, count) for namespace, (identity, count) in counts.items()],
            )

    # --- digests of a source ---

    def put_digests(self, migration: str, tables: dict[str, bytes]) -> None:
        """Keep what one pass over a source found."""
        with self._ours() as db:
            db.execute("DELETE FROM source_digest WHERE migration = ?", (migration,))
            db.executemany(
                "INSERT INTO source_digest (migration, namespace, buckets) VALUES (?, ?, ?)",
                [(migration, namespace, buckets) for namespace, buckets in tables.items()],
            )

    def digests(self, migration: str) -> dict[str, bytes]:
        with self._ours() as db:
            rows = db.execute(
                "SELECT namespace, buckets FROM source_digest WHERE migration = ?", (migration,)
            )
            return {namespace: bytes(buckets) for namespace, buckets in rows}

    def drop_digests(self, migration: str) -> None:
        """Of every state of its source, and which records were left out; the quarantine stays."""
        with self._ours() as db:
            states = "migration = ?1 OR substr(migration, 1, length(?1) + 1) = ?1 || ' '"
            db.execute(f"DELETE FROM source_digest WHERE {states}", (migration,))  # noqa: S608
            db.execute(f"DELETE FROM left_out WHERE {states}", (migration,))  # noqa: S608

    # --- bad records ---

    def put_left_out(self, migration: str, positions: dict[str, bytes]) -> None:
        with self._ours() as db:
            db.execute("DELETE FROM left_out WHERE migration = ?", (migration,))
            db.executemany(
                "INSERT INTO left_out (migration, namespace, positions) VALUES (?, ?, ?)",
                [(migration, namespace, found) for namespace, found in positions.items()],
            )

    def left_out(self, migration: str) -> dict[str, bytes]:
        with self._ours() as db:
            rows = db.execute("SELECT namespace, positions FROM left_out WHERE migration = ?", (migration,))
            return {namespace: bytes(found) for namespace, found in rows}

    def put_refusal(self, database: str, part: str, refusal: Refusal | None) -> None:
        with self._ours() as db:
            db.execute("DELETE FROM refusal WHERE database = ? AND part = ?", (database, part))
            if refusal is not None:
                db.execute(
                    "INSERT INTO refusal (database, part, tool, found) VALUES (?, ?, ?, ?)",
                    (database, part, tool(), json.dumps(asdict(refusal))),
                )

    def quarantine(
        self, database: str, migration: str
    ) -> contextlib.AbstractContextManager[Callable[[BadRecord], None]]:
        return quarantine(quarantine_path(self.path.parent, database, migration))

    def quarantine_file(self, database: str, migration: str) -> str | None:
        path = quarantine_path(self.path.parent, database, migration)
        return str(path) if path.is_file() else None

    # --- pauses ---

    def open_pause(self, database: str, run: str, fingerprint: str | None) -> None:
        with self._ours() as db:
            # One that a killed run left open goes on: the writer stands since then.
            db.execute(
                "INSERT INTO pause (database, run, fingerprint, opened) VALUES (?, ?, ?, ?) ON CONFLICT (database) "
                "DO UPDATE SET run = excluded.run, fingerprint = excluded.fingerprint",
                (database, run, fingerprint, time.time()),
            )

    def pause_of(self, database: str) -> tuple[str, str | None] | None:
        """(run, fingerprint of the source) of an open pause."""
        with self._ours() as db:
            row = db.execute("SELECT run, fingerprint FROM pause WHERE database = ?", (database,)).fetchone()
        return (row[0], row[1]) if row else None

    def paused_since(self, database: str) -> float | None:
        with self._ours() as db:
            row = db.execute("SELECT opened FROM pause WHERE database = ?", (database,)).fetchone()
        return float(row[0]) if row else None

    def close_pause(self, database: str) -> None:
        with self._ours() as db:
            db.execute("DELETE FROM pause WHERE database = ?", (database,))

    # --- switches ---

    def begin_switch(self, database: str, migrations: Collection[str]) -> None:
        with self._ours() as db:
            db.executemany(
                "INSERT OR REPLACE INTO switching (migration, database) VALUES (?, ?)",
                [(migration, database) for migration in migrations],
            )

    def end_switch(self, database: str) -> None:
        with self._ours() as db:
            db.execute("DELETE FROM switching WHERE database = ?", (database,))

    def put_served(self, database: str, records: Mapping[str, int]) -> None:
        with self._ours() as db:
            db.executemany(
                "INSERT OR REPLACE INTO served (database, namespace, records) VALUES (?, ?, ?)",
                [(database, namespace, count) for namespace, count in records.items()],
            )
