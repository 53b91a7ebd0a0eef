"""The journal and the lease: one apply at a time, a kill gives back by itself, and reading writes nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridrag.errors import LeaseHeld
from hybridrag.journal import (
    Journal,
    JournalUnreadable,
    Lease,
    is_running,
    known_counts,
    last_run,
    lease,
    open_pauses,
    progress,
)
from hybridrag.model.events import Progress
from tests.conftest import digests

HOLDER = """
import sys
from pathlib import Path
from hybridrag.journal import Journal, Lease
with Journal(Path(sys.argv[1])) as journal, Lease(journal, "holder") as lease:
    journal.begin_run("r1", "somebody@here", "s", "o")
    journal.begin_step("r1", "migrate.notes")
    journal.open_pause("notes", "r1", "fp")
    print(lease.fence, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of an apply; ends when its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip().isdigit()
            yield process
        finally:
            process.kill()


def test_a_lease_is_refused_while_its_holder_lives_and_is_free_when_it_ends(tmp_path: Path) -> None:
    """A second apply is told who holds it, and nothing of the journal changes; fencing numbers only grow."""
    path = tmp_path / "journal.db"
    with holder(path) as process:
        with Journal(path) as journal, pytest.raises(LeaseHeld) as caught, Lease(journal, "me"):
            raise AssertionError("two at once")
        assert caught.value.exit_code == 9
        assert f"holder (pid {process.pid} on " in caught.value.what
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    fences = []
    for _ in range(2):
        with Journal(path) as journal, Lease(journal, "me") as held:
            held.check()
            fences.append(held.fence)
    assert fences == [2, 3]


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_a_killed_holder_gives_the_lease_back_at_once(tmp_path: Path, reaped: bool) -> None:
    """Also when its parent never asks for it; the run it left is called killed, its pause stands open."""
    path = tmp_path / "journal.db"
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait(10)
        else:
            _until_zombie(process.pid)
        newest = last_run(path)
        assert newest is not None
        assert (newest.id, newest.outcome) == ("r1", None)
        with Journal(path) as journal, Lease(journal, "me") as held:
            assert held.fence == 2
            assert journal.pause_of("notes") == ("r1", "fp")
            journal.begin_run("r2", "me", "s", "o")
            with journal.transaction() as db:
                outcomes = dict(db.execute("SELECT id, outcome FROM run"))
    assert outcomes == {"r1": "killed", "r2": None}


def _until_zombie(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _set(path: Path, **columns: object) -> None:
    db = sqlite3.connect(path)
    with contextlib.closing(db), db:
        db.execute(
            f"UPDATE lease SET {', '.join(f'{name} = ?' for name in columns)}", tuple(columns.values())
        )


def test_a_holder_on_another_machine_keeps_the_lease_until_it_expires(tmp_path: Path) -> None:
    """Its process cannot be asked, so only time tells; a reused pid of this machine is not the holder."""
    path = tmp_path / "journal.db"
    with Journal(path) as journal, Lease(journal, "first"):
        pass
    _set(path, host="elsewhere", pid=1, expires=time.time() + 20)
    with Journal(path) as journal:
        with pytest.raises(LeaseHeld, match="on elsewhere"), Lease(journal, "me"):
            pass
        _set(path, expires=time.time() - 0.1)
        with Lease(journal, "me") as held:
            assert held.fence == 2
    # The same pid on this host, but another process (another start time).
    import socket

    _set(path, host=socket.gethostname(), pid=os.getpid(), process="1", expires=time.time() + 20)
    with Journal(path) as journal, Lease(journal, "me") as held:
        assert held.fence == 3


def test_a_holder_that_slept_too_long_learns_that_it_lost_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another apply took over: the sleeper stops at its next step, and its end does not free the other's lease."""
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    path = tmp_path / "journal.db"
    with Journal(path) as sleeper, Journal(path) as other, Lease(sleeper, "sleeper") as lost:
        monkeypatch.setattr(lease, "BEAT_S", 5.0)
        _set(path, expires=0)
        with Lease(other, "other") as held:
            deadline = time.monotonic() + 5
            while not lost.lost and time.monotonic() < deadline:
                time.sleep(0.01)
            with pytest.raises(LeaseHeld):
                lost.check()
            lost.__exit__(None, None, None)
            held.check()
            with pytest.raises(LeaseHeld, match="other"), Lease(sleeper, "third"):
                pass


def test_a_holder_that_did_not_notice_its_loss_does_not_free_the_others_lease(tmp_path: Path) -> None:
    """Its end writes only under its own fencing number."""
    path = tmp_path / "journal.db"
    with Journal(path) as sleeper, Journal(path) as other:
        late = Lease(sleeper, "sleeper")
        late.__enter__()
        _set(path, expires=0)
        with Lease(other, "other"):
            late.__exit__(None, None, None)
            with pytest.raises(LeaseHeld, match="other"), Lease(sleeper, "third"):
                pass


def test_reading_the_journal_creates_and_changes_no_file(tmp_path: Path) -> None:
    """Missing, closed, live with a write-ahead log, and left behind by a kill: what is read is the newest, nothing moves."""
    state = tmp_path / "state"
    path = state / "journal.db"
    assert (last_run(path), open_pauses(path)) == (None, [])
    assert not state.exists()

    with Journal(path) as journal:
        journal.begin_run("r0", "me", "s", "o")
        journal.end_run("r0", "failed", "why")
    before, touched = digests(state), state.stat().st_mtime_ns
    assert list(before) == ["journal.db"]
    first = last_run(path)
    assert first is not None
    assert (first.id, first.outcome, first.error, open_pauses(path)) == ("r0", "failed", "why", [])
    assert digests(state) == before
    assert state.stat().st_mtime_ns == touched, "a file was created and removed again"

    with holder(path) as process:
        live = digests(state)
        assert set(live) == {"journal.db", "journal.db-wal", "journal.db-shm"}
        for _ in range(3):
            newest = last_run(path)
            assert newest is not None
            assert (newest.id, newest.outcome, open_pauses(path)) == ("r1", None, ["notes"])
        assert digests(state) == live
        process.kill()
        process.wait(10)
        assert open_pauses(path) == ["notes"]
        assert digests(state) == live
    times = {item.name: item.stat().st_mtime_ns for item in state.iterdir()}
    assert last_run(path) is not None
    assert {item.name: item.stat().st_mtime_ns for item in state.iterdir()} == times


def test_what_a_killed_run_left_is_remembered_once_and_completely(tmp_path: Path) -> None:
    """Digests of a source replace each other as a set; a transaction that fails leaves nothing behind."""
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.put_digests("m1", {"nodes": b"\x00\xff", "edges": b""})
        journal.put_digests("m2", {"nodes": b"2"})
        journal.put_digests("m1", {"chunks": b"3"})
        with pytest.raises(ZeroDivisionError):
            _forget_and_fail(journal)
        journal.open_pause("notes", "r1", None)
        journal.open_pause("notes", "r2", "fp")
    with Journal(path) as journal:
        assert (journal.digests("m1"), journal.digests("m2")) == ({"chunks": b"3"}, {"nodes": b"2"})
        journal.drop_digests("m1")
        assert (journal.digests("m1"), journal.digests("m2")) == ({}, {"nodes": b"2"})
        assert journal.pause_of("notes") == ("r2", "fp")
        journal.close_pause("notes")
        assert journal.pause_of("notes") is None
    assert path.stat().st_mode & 0o777 == 0o600


def _forget_and_fail(journal: Journal) -> None:
    with journal.transaction() as db:
        db.execute("DELETE FROM source_digest")
        raise ZeroDivisionError


def test_a_journal_that_is_none_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Garbage and a newer schema: words and a way on for writers, no answer for readers that only inform."""
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is not SQLite\n" * 100)
    newer = tmp_path / "newer.db"
    with Journal(newer) as journal, journal.transaction() as db:
        db.execute("PRAGMA user_version = 99")
    before = digests(tmp_path)
    for path, words in ((garbage, "cannot be used"), (newer, "newer hybridrag")):
        with pytest.raises(JournalUnreadable, match=words) as caught:
            Journal(path)
        assert "move the file away" in (caught.value.hint or "")
    assert (last_run(garbage), open_pauses(garbage), last_run(newer)) == (None, [], None)
    assert digests(tmp_path) == before


FIRST_VERSION = """
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
INSERT INTO lease VALUES (1, 'o', 'h', 1, 'p', 1.0, 0, 41);
INSERT INTO run VALUES ('r1', 1.0, 2.0, 'me', 's', 'o', 'failed', 'why');
INSERT INTO source_digest VALUES ('m', 'nodes', x'0102');
INSERT INTO pause VALUES ('notes', 'r1', 'fp', 1.0);
PRAGMA user_version = 1;
"""


def test_a_journal_of_the_first_version_is_kept_and_extended(tmp_path: Path) -> None:
    """Read as it is by those who only look; the next apply adds what is new and loses nothing; twice is once."""
    path = tmp_path / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_VERSION)
    before = digests(tmp_path)
    assert (progress(path), known_counts(path, "f"), is_running(path)) == ({}, {}, False)
    run = last_run(path)
    assert run is not None
    assert (run.id, open_pauses(path)) == ("r1", ["notes"])
    assert digests(tmp_path) == before
    for fence in (42, 43):
        with Journal(path) as journal, Lease(journal, "me") as held:
            assert held.fence == fence
            assert journal.pause_of("notes") == ("r1", "fp")
            assert journal.digests("m") == {"nodes": b"\x01\x02"}
            journal.put_counts("f", {"nodes": ("g 1 2 3", 7)})
        assert known_counts(path, "f") == {"nodes": ("g 1 2 3", 7)}
    assert last_run(path) == run


def test_progress_is_of_the_newest_run_of_each_database_and_tells_whether_it_lives(tmp_path: Path) -> None:
    """Read while it is written, and after a kill, without changing a byte."""
    path = tmp_path / "journal.db"
    assert (progress(path), is_running(path)) == ({}, False)
    with holder(path) as process:
        with Journal(path) as journal:
            for records in (10, 20):
                told = Progress(step="migrate.notes", phase="copying", records=records, total=100, bytes=5, rate=2.5,
                                eta_s=32.0)  # fmt: skip
                journal.put_progress("notes", "r1", told)
        before = digests(tmp_path)
        found = progress(path)
        assert list(found) == ["notes"]
        record = found["notes"]
        assert (record.run, record.records, record.eta_s, record.outcome) == ("r1", 20, 32.0, None)
        assert is_running(path)
        process.kill()
        process.wait(10)
        assert not is_running(path)
        assert digests(tmp_path) == before
    with Journal(path) as journal:
        journal.begin_run("r2", "me", "s", "o")
    assert progress(path)["notes"].outcome == "killed"


def test_counts_of_a_folder_replace_each_other_as_a_set(tmp_path: Path) -> None:
    """A namespace that was not counted again is not remembered, and other folders keep theirs."""
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.put_counts("a", {"nodes": ("x", 1), "edges": ("x", 2)})
        journal.put_counts("b", {"nodes": ("y", 3)})
        journal.put_counts("a", {"nodes": ("z", 4)})
    assert known_counts(path, "a") == {"nodes": ("z", 4)}
    assert known_counts(path, "b") == {"nodes": ("y", 3)}
