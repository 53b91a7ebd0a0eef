"""The pause between the reconciler and a daemon: who asked first is heard, and nobody writes on a broken promise."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridrag.errors import PlanRefused
from hybridrag.journal import WatchState, look_at_watcher, state_file
from hybridrag.journal.watch_state import BY_HAND, Activity, WriterLock

WRITING = Activity(state="ingesting", detail="a.md", backend="files", queued=3, ingested=1)
ASKING = """
import sys
from pathlib import Path
from hybridrag.journal import WatchState
with WatchState(Path(sys.argv[1])) as state:
    state.ask_pause("apply")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watch" / "notes.db"


@pytest.fixture
def daemon(path: Path) -> Iterator[WatchState]:
    with WatchState(path) as opened:
        yield opened


@pytest.fixture
def apply(path: Path) -> Iterator[WatchState]:
    with WatchState(path) as opened:
        yield opened


def lapse(path: Path, owner: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE pause SET expires = 1 WHERE owner = ?", (owner,))


def test_a_daemon_writes_only_while_nobody_asks_it_not_to(daemon: WatchState, apply: WatchState) -> None:
    """Each request holds by itself, and what the daemon says of itself changes only when it may."""
    assert daemon.may_write(WRITING)
    apply.ask_pause("apply")
    apply.ask_pause(BY_HAND, ttl_s=None)
    assert daemon.pauses() == {"apply": False, BY_HAND: False}
    assert not daemon.may_write(Activity(state="idle"))
    assert apply.lift_pause("apply")
    assert not apply.lift_pause("apply"), "there is none any more"
    assert not daemon.may_write(Activity(state="idle"))
    look = look_at_watcher(daemon.path)
    assert look is not None
    assert (look.activity, look.pauses, look.acknowledged) == (WRITING, (BY_HAND,), False)
    assert apply.lift_pause(BY_HAND)
    assert daemon.may_write(Activity(state="idle"))
    look = look_at_watcher(daemon.path)
    assert look is not None
    assert (look.activity, look.pauses) == (Activity(state="idle"), ())


def test_only_who_was_acknowledged_may_rely_on_the_pause(daemon: WatchState, apply: WatchState) -> None:
    """A request that came after the answer, and one asked anew, have not been answered."""
    apply.ask_pause("apply")
    assert not apply.is_acknowledged("apply")
    daemon.acknowledge()
    assert apply.is_acknowledged("apply")
    apply.ask_pause(BY_HAND, ttl_s=None)
    assert daemon.pauses() == {"apply": True, BY_HAND: False}
    look = look_at_watcher(daemon.path)
    assert look is not None
    assert not look.acknowledged, "not all of them were"
    apply.ask_pause("apply")
    assert not apply.is_acknowledged("apply")
    daemon.acknowledge()
    look = look_at_watcher(daemon.path)
    assert look is not None
    assert (look.acknowledged, look.pauses) == (True, (BY_HAND, "apply"))
    assert not apply.is_acknowledged("nobody")


def test_a_request_that_lapsed_cannot_be_renewed(daemon: WatchState, apply: WatchState, path: Path) -> None:
    """The daemon may have written since: who slept learns it, and the switch is refused."""
    apply.ask_pause("apply")
    daemon.acknowledge()
    assert apply.renew_pause("apply")
    with apply.sealed("apply"):
        pass
    lapse(path, "apply")
    assert not apply.renew_pause("apply")
    assert daemon.pauses() == {}
    with pytest.raises(PlanRefused, match="ran out before the switch"), apply.sealed("apply"):
        raise AssertionError("switched on a pause that had run out")
    assert daemon.may_write(WRITING)
    assert not apply.renew_pause("apply"), "a request was revived"


def test_renewing_gives_the_whole_time_again(apply: WatchState, path: Path) -> None:
    """From now on, not from when it was asked for."""
    apply.ask_pause("apply", ttl_s=5)
    apply.renew_pause("apply", ttl_s=500)
    with contextlib.closing(sqlite3.connect(path)) as db:
        (expires,) = db.execute("SELECT expires FROM pause").fetchone()
    assert expires == pytest.approx(time.time() + 500, abs=60)


@pytest.mark.parametrize("answered", [True, False], ids=["acknowledged", "unanswered"])
def test_the_pointer_changes_only_under_a_pause_that_holds(
    daemon: WatchState, apply: WatchState, answered: bool
) -> None:
    """One that was never asked for, or never answered, is none; one by hand without an end is as good."""
    with pytest.raises(PlanRefused), apply.sealed("apply"):
        raise AssertionError("switched without a pause")
    apply.ask_pause("apply", ttl_s=None)
    if answered:
        daemon.acknowledge()
        with apply.sealed("apply"):
            pass
    else:
        with pytest.raises(PlanRefused), apply.sealed("apply"):
            raise AssertionError("switched although the daemon may be writing")


def test_nobody_begins_to_write_while_the_pointer_changes(
    apply: WatchState, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the pause lifted, or another one asked for; looking waits for nobody."""
    monkeypatch.setattr(state_file, "PATIENCE_S", 0.05)
    with WatchState(path) as daemon:
        apply.ask_pause("apply")
        daemon.acknowledge()
        with apply.sealed("apply"):
            for attempt in (
                lambda: daemon.may_write(WRITING),
                lambda: daemon.lift_pause("apply"),
                lambda: daemon.ask_pause(BY_HAND),
            ):
                with pytest.raises(state_file.StateBusy):
                    attempt()
            assert daemon.pauses() == {"apply": True}
        assert not daemon.may_write(WRITING)


def test_the_request_of_a_process_that_died_holds_no_more(daemon: WatchState, path: Path) -> None:
    """Long before it would lapse by itself."""
    subprocess.run([sys.executable, "-c", ASKING, str(path)], check=True)
    assert daemon.pauses() == {}
    look = look_at_watcher(path)
    assert look is not None
    assert (look.pauses, look.acknowledged, look.running) == ((), False, False)
    assert daemon.may_write(WRITING)


def test_what_a_daemon_remembers_is_the_newest(daemon: WatchState, path: Path) -> None:
    """Sizes of a month, speeds of some cycles, one warning for a subject."""
    daemon.put_sizes({"vdb.json": 10, "graph.xml": 5})
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO size VALUES (?, 'old', 1)", (time.time() - 31 * 86400,))
        db.execute("INSERT INTO size VALUES (?, 'recent', 2)", (time.time() - 29 * 86400,))
    look = look_at_watcher(path)
    assert look is not None
    assert [(file, size) for _, file, size in look.sizes] == [
        ("recent", 2),
        ("vdb.json", 10),
        ("graph.xml", 5),
    ]
    daemon.put_sizes({"vdb.json": 11})
    told = [(file, size) for _, file, size in daemon.sizes()]
    assert told == [("recent", 2), ("vdb.json", 10), ("graph.xml", 5), ("vdb.json", 11)]
    for number in range(5):
        daemon.put_rate(number, 100, 2.5, keep=3)
    assert [rate[1:] for rate in daemon.rates()] == [(2, 100, 2.5), (3, 100, 2.5), (4, 100, 2.5)]
    daemon.put_warned("size", 1.0)
    daemon.put_warned("size", 2.0)
    daemon.put_warned("speed", 3.0)
    daemon.drop_warned("speed")
    assert {subject: value for subject, (value, _) in daemon.warned().items()} == {"size": 2.0}
    look = look_at_watcher(path)
    assert look is not None
    assert look.warned == {"size": 2.0}


def test_a_state_lasts_since_it_began(daemon: WatchState, path: Path) -> None:
    """Telling more of the same does not begin it anew."""

    def since() -> float:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return float(db.execute("SELECT since FROM activity").fetchone()[0])

    daemon.put_activity(WRITING)
    first = since()
    daemon.put_activity(Activity(state="ingesting", detail="b.md", failed=1, last_error="no"))
    assert since() == first
    look = look_at_watcher(path)
    assert look is not None
    assert look.activity == Activity(state="ingesting", detail="b.md", failed=1, last_error="no")
    daemon.put_activity(Activity(state="idle"))
    assert since() > first


def test_the_lock_is_free_only_when_the_daemon_and_its_child_are_gone(path: Path) -> None:
    """A child process that inherited it may still write when the daemon is dead."""
    lock, successor = WriterLock(path), WriterLock(path)
    try:
        assert lock.take()
        assert not successor.take()
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[lock.fd]
        ) as child:
            lock.close()
            assert not successor.take()
            child.kill()
        assert successor.take()
    finally:
        successor.close()
