"""What the journal tells of past runs: the newest first, whole, and never another run's."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from hybridrag.journal import Journal, Lease, holder, is_running, lease, run_steps, runs
from tests.unit import test_journal
from tests.unit.test_journal import holder as running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three runs: one that failed, one that is done, one that is under way."""
    with Journal(tmp_path / "journal.db") as journal:
        journal.begin_run("ab-1", "zoë@here", "spec-1", "seen-1")
        journal.begin_step("ab-1", "validate.notes")
        journal.end_step("ab-1", "validate.notes", "done", "82 records")
        journal.begin_step("ab-1", "migrate.notes")
        journal.end_step("ab-1", "migrate.notes", "failed", "the server went away")
        journal.end_run("ab-1", "failed", "the server went away")
        journal.begin_run("ab-2", "me@here", "spec-2", "seen-2")
        journal.end_run("ab-2", "done", None)
        journal.begin_run("ab", "me@there", "spec-3", "seen-3")
        journal.begin_step("ab", "validate.notes")
    return tmp_path / "journal.db"


def test_runs_are_told_newest_first_and_as_many_as_were_asked_for(path: Path) -> None:
    """With who, when, what became of it and why."""
    found = runs(path)
    assert [(run.id, run.who, run.outcome, run.error) for run in found] == [
        ("ab", "me@there", None, None),
        ("ab-2", "me@here", "done", None),
        ("ab-1", "zoë@here", "failed", "the server went away"),
    ]
    assert found[0].finished is None
    for ended in found[1:]:
        assert ended.finished is not None
        assert time.time() - 60 < ended.started <= ended.finished <= time.time()
    assert [run.id for run in runs(path, 2)] == ["ab", "ab-2"]
    assert runs(path, 0) == []
    assert runs(path.with_name("none.db")) == []


def test_a_run_is_found_by_the_beginning_of_its_id(path: Path) -> None:
    """An exact id wins; a beginning that several share names none."""
    told = run_steps(path, "ab-1")
    assert told is not None
    detail, steps = told
    assert (detail.record.id, detail.spec_digest, detail.observation_digest) == ("ab-1", "spec-1", "seen-1")
    assert [(step.step, step.outcome, step.detail) for step in steps] == [
        ("validate.notes", "done", "82 records"),
        ("migrate.notes", "failed", "the server went away"),
    ]
    assert all(step.finished is not None and step.finished >= step.started for step in steps)
    exact = run_steps(path, "ab")
    assert exact is not None
    assert [(step.step, step.outcome, step.finished) for step in exact[1]] == [("validate.notes", None, None)]
    assert run_steps(path, "ab-") is None
    assert run_steps(path, "b") is None
    assert run_steps(path, "x") is None


def test_a_step_that_is_begun_again_is_one_step(path: Path) -> None:
    """As it was begun last."""
    with Journal(path) as journal:
        journal.begin_step("ab", "validate.notes")
        journal.end_step("ab", "validate.notes", "unchanged", "")
    told = run_steps(path, "ab")
    assert told is not None
    assert [(step.step, step.outcome) for step in told[1]] == [("validate.notes", "unchanged")]


def test_who_holds_the_lease_is_told_with_its_last_heartbeat(tmp_path: Path) -> None:
    """And whether it was stopped; nobody holds one that ran out."""
    path = tmp_path / "journal.db"
    assert holder(path) is None
    with running(path) as process:
        held = holder(path)
        assert held is not None
        assert time.time() - 60 < held.since <= held.beat <= time.time()
        assert (held.owner, held.fence, held.lives_here, held.stopped) == ("holder", 1, True, False)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert held.stopped
        process.send_signal(signal.SIGCONT)
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE lease SET host = 'elsewhere'")
        far = holder(path)
        assert far is not None
        assert (far.lives_here, far.stopped) == (False, False), "a pid of another machine says nothing here"
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE lease SET expires = ?", (time.time() - 1,))
        assert (holder(path), is_running(path)) == (None, False)


def test_a_holder_at_work_keeps_its_lease_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat moves the end of the lease on; the end of the run gives it back."""
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    path = tmp_path / "journal.db"
    with Journal(path) as journal, Lease(journal, "me") as mine:
        almost = time.time() + 2
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE lease SET expires = ?", (almost,))
        deadline = time.monotonic() + 10
        while (held := holder(path)) is None or held.beat + lease.TTL_S <= almost + 1:
            assert time.monotonic() < deadline, "nobody renewed it"
            time.sleep(0.02)
        mine.check()
        assert not mine.lost
    assert holder(path) is None


def test_nobody_takes_the_lease_while_its_holder_guards_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when it has run out meanwhile."""
    from hybridrag.journal import state_file

    path = tmp_path / "journal.db"
    with Journal(path) as journal, Lease(journal, "me") as mine:
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE lease SET expires = 1")
        monkeypatch.setattr(state_file, "PATIENCE_S", 0.05)
        with mine.guard(), pytest.raises(state_file.StateBusy):
            Journal(path)


def test_a_holder_whose_name_is_no_text_is_a_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may call itself by any bytes; whether it lives is seen all the same."""
    path = tmp_path / "journal.db"
    name = r'open("/proc/self/comm", "wb").write(b"\xff ) \xfe")'
    monkeypatch.setattr(test_journal, "HOLDER", f"{name}\n{test_journal.HOLDER}")
    with running(path) as process:
        assert b"\xff" in Path(f"/proc/{process.pid}/stat").read_bytes()
        held = holder(path)
        assert held is not None
        assert (held.lives_here, held.stopped) == (True, False)
        assert lease.process_mark(process.pid) == held.process != ""
