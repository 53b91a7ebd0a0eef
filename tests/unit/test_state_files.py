"""The state's files over time: another schema, damage, somebody else's hands. History may be lost, nothing else."""

from __future__ import annotations

import contextlib
import contextvars
import os
import random
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hybridrag.errors import BackendUnavailable, HybridragError, LeaseHeld
from hybridrag.journal import (
    Journal,
    JournalUnreadable,
    Lease,
    Registry,
    RegistryEntry,
    WatchState,
    holder,
    is_running,
    known_counts,
    last_run,
    look_at_watcher,
    open_pauses,
    problem,
    progress,
    run_steps,
    runs,
    take_away,
)
from hybridrag.model.events import Progress
from tests.conftest import digests
from tests.unit.test_journal import FIRST_VERSION
from tests.unit.test_journal import holder as running


def first_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_VERSION)


def test_a_copy_is_kept_before_the_schema_is_migrated(tmp_path: Path) -> None:
    """It is the file as it was, whole by itself, for our eyes only; a file of this version needs none."""
    path = tmp_path / "journal.db"
    first_version(path)
    with Journal(path):
        pass
    kept = tmp_path / "journal.db.schema-1"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(f"file:{kept}?immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT id FROM run").fetchall() == [("r1",)]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    before = digests(tmp_path)
    with Journal(path):
        pass
    assert set(digests(tmp_path)) == set(before) == {"journal.db", "journal.db.schema-1"}
    # It can be put back by hand, and is migrated again.
    path.unlink()
    kept.rename(path)
    with Journal(path) as journal:
        assert journal.pause_of("notes") == ("r1", "fp")


def test_only_the_newest_copies_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for number in range(90, 96):
        old = tmp_path / f"journal.db.schema-{number}"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    first_version(path)
    with Journal(path):
        pass
    assert sorted(each.name for each in tmp_path.glob("*.schema-*")) == [
        "journal.db.schema-1",
        "journal.db.schema-94",
        "journal.db.schema-95",
    ]


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction: the version that wrote it, and this one when it is mended, can go on with it."""
    path = tmp_path / "journal.db"
    first_version(path)
    monkeypatch.setattr(Journal, "VERSIONS", (*Journal.VERSIONS, "CREATE TABLE run (id TEXT)"))
    with pytest.raises(JournalUnreadable, match="table run already exists"):
        Journal(path)
    monkeypatch.undo()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"lease", "run", "step", "source_digest", "pause"}
    assert not list(tmp_path.glob(".*.new"))
    with Journal(path) as journal:
        assert journal.digests("m") == {"nodes": b"\x01\x02"}


def test_a_newer_schema_is_refused_for_writing_and_told_of_to_readers(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal, journal.transaction() as db:
        db.execute("PRAGMA user_version = 99")
    before = digests(tmp_path)
    assert problem(path) == "it was written by a newer hybridrag (schema 99)"
    for read in (lambda: runs(path), lambda: run_steps(path, "r"), lambda: holder(path)):
        with pytest.raises(JournalUnreadable, match="newer hybridrag"):
            read()
    assert digests(tmp_path) == before


def filled(path: Path) -> None:
    with Journal(path) as journal, Lease(journal, "me"):
        for number in range(30):
            journal.begin_run(f"r{number}", "me", "s", "o")
            journal.begin_step(f"r{number}", "copy")
            journal.end_step(f"r{number}", "copy", "done", "x" * 50)
            journal.end_run(f"r{number}", "done", None)
        journal.put_counts("f", {"nodes": ("g", 7)})
        journal.put_digests("m", {"nodes": bytes(3000)})
        journal.open_pause("notes", "r1", "fp")
        told = Progress(
            step="migrate.notes", phase="copying", records=1, total=2, bytes=5, rate=2.5, eta_s=1.0
        )
        journal.put_progress("notes", "r1", told)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut off, or with some bytes changed; often where SQLite keeps what it needs most."""
    kind = chance.randrange(4)
    if kind == 0:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    if kind == 1:
        start = chance.randrange(len(data))
        changed[start : start + 4096] = bytes(4096)
        return bytes(changed[: len(data)])
    end = min(4096, len(data)) if kind == 2 else len(data)
    for _ in range(chance.choice([1, 8, 200])):
        changed[chance.randrange(end)] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(60))
def test_damage_is_told_in_words_and_never_changes_what_only_informs(tmp_path: Path, seed: int) -> None:
    """Whatever was done to the file, readers answer something of the right kind and writers raise errors with words."""
    path = tmp_path / "journal.db"
    filled(path)
    path.write_bytes(damaged(path.read_bytes(), random.Random(seed)))
    before = digests(tmp_path)
    found = last_run(path)
    assert found is None or isinstance(found.started, float)
    assert isinstance(open_pauses(path), list)
    assert isinstance(is_running(path), bool)
    assert isinstance(progress(path), dict)
    assert all(isinstance(count, int) for _, count in known_counts(path, "f").values())
    assert problem(path) is None or isinstance(problem(path), str)
    for read in (lambda: runs(path), lambda: run_steps(path, "r3"), lambda: holder(path)):
        with contextlib.suppress(JournalUnreadable):
            read()
    assert digests(tmp_path) == before, "reading wrote"
    with contextlib.suppress(HybridragError), Journal(path) as journal, Lease(journal, "me") as lease:
        journal.begin_run("new", "me", "s", "o")
        journal.put_counts("f", {"nodes": ("g", 8)})
        journal.digests("m")
        journal.drop_digests("m")
        journal.close_pause("notes")
        lease.check()
        journal.end_run("new", "done", None)


@pytest.mark.parametrize("seed", range(20))
def test_damage_of_a_watchers_state_is_told_in_words(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "watch" / "notes.db"
    with WatchState(path) as state:
        state.ask_pause("me")
        state.acknowledge()
        state.put_sizes({"a": 1})
        state.put_rate(1, 2, 3.0)
        state.put_warned("x", 1.0)
    path.write_bytes(damaged(path.read_bytes(), random.Random(seed)))
    look_at_watcher(path)
    with contextlib.suppress(HybridragError), WatchState(path) as state:
        state.pauses()
        state.ask_pause("you")
        state.sizes()
        state.rates()
        state.warned()
        state.lift_pause("you")


@pytest.mark.parametrize("seed", range(60))
def test_damage_of_a_registry_is_told_in_words(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "registry.yaml"
    Registry(path).put(RegistryEntry(name="notes", path="/notes", backend="pg", backend_type="postgres"))
    path.write_bytes(damaged(path.read_bytes(), random.Random(seed)))
    with contextlib.suppress(HybridragError):
        Registry(path).read()


def test_a_journal_that_is_a_folder_or_below_a_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(BackendUnavailable, match="cannot be opened for writing"):
        Journal(tmp_path / "journal.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendUnavailable, match="cannot be opened for writing"):
        Journal(tmp_path / "file" / "journal.db")
    assert last_run(tmp_path / "journal.db") is None
    assert last_run(tmp_path / "file" / "journal.db") is None


def test_a_full_disk_is_told_in_words_and_the_state_stays_as_it_was(tmp_path: Path) -> None:
    """SQLite's own "disk is full"; the transaction is gone as a whole, and the next one that fits is written."""
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.put_digests("m", {"nodes": b"old"})
        with journal.transaction() as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(BackendUnavailable) as caught:
            journal.put_digests("m", {"nodes": bytes(1_000_000)})
        assert caught.value.what == f'the journal "{path}" cannot be written: database or disk is full'
        assert (caught.value.hint or "").startswith("free space there, then run hybridrag apply")
        assert journal.digests("m") == {"nodes": b"old"}
        journal.put_digests("m", {"nodes": b"new"})
        assert journal.digests("m") == {"nodes": b"new"}


def test_a_registry_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    """Something in its way is nothing that free space would mend; the entries that were there stay."""
    registry = Registry(tmp_path / "registry.yaml")
    registry.put(RegistryEntry(name="notes", path="/notes"))
    (tmp_path / ".registry.yaml.new").mkdir()
    with pytest.raises(BackendUnavailable, match=r'the registry ".*" cannot be written: ') as caught:
        registry.put(RegistryEntry(name="other", path="/other"))
    assert "check the folder and its permissions" in (caught.value.hint or "")
    assert list(registry.read().databases) == ["notes"]


def test_a_damaged_state_says_where_it_is_and_what_its_loss_would_cost(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is not SQLite\n" * 100)
    for read in (lambda: Journal(path), lambda: runs(path)):
        with pytest.raises(JournalUnreadable, match="cannot be used") as caught:
            read()
        assert caught.value.where == str(path)
        assert "history is lost, nothing else" in (caught.value.hint or "")


def test_the_state_is_nobody_elses_from_its_first_moment(tmp_path: Path) -> None:
    """Its side files as well, whatever the umask."""
    before = os.umask(0)
    try:
        with Journal(tmp_path / "journal.db") as journal:
            journal.begin_run("r", "me", "s", "o")
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm"), 0o600)


# --- the fence ---


def expire(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE lease SET expires = 1")


def successor(journal: Journal, registry: Registry, entry: RegistryEntry) -> None:
    """What another process does meanwhile."""
    with Lease(journal, "other") as lease:
        registry.put(entry.model_copy(update={"backend": "second"}))
        journal.open_pause("notes", "r2", "fp")
        lease.check()


def test_who_was_taken_over_changes_neither_registry_nor_what_the_next_run_relies_on(tmp_path: Path) -> None:
    """Checked where it is written, not only between steps."""
    path, registry = tmp_path / "journal.db", Registry(tmp_path / "registry.yaml")
    entry = RegistryEntry(name="notes", path="/notes", backend="pg", backend_type="postgres")
    with Journal(path) as sleeper, Journal(path) as other, Lease(sleeper, "sleeper"):
        registry.put(entry)
        expire(path)
        contextvars.copy_context().run(successor, other, registry, entry)
        before = digests(tmp_path)["registry.yaml"]
        with pytest.raises(LeaseHeld, match="was taken over by other"):
            registry.put(entry)
        with pytest.raises(LeaseHeld):
            registry.drop("notes")
        with pytest.raises(LeaseHeld):
            sleeper.close_pause("notes")
        assert digests(tmp_path)["registry.yaml"] == before
    with Journal(path) as journal:
        assert journal.pause_of("notes") == ("r2", "fp")


def test_a_run_whose_journal_was_removed_writes_nothing_any_more(tmp_path: Path) -> None:
    """Another apply would make a new journal, and a lease of its own in it."""
    path = tmp_path / "journal.db"
    with Journal(path) as journal, Lease(journal, "me") as lease:
        path.unlink()
        with pytest.raises(LeaseHeld, match="was removed or replaced while this apply ran"):
            lease.check()
        with pytest.raises(LeaseHeld):
            Registry(tmp_path / "registry.yaml").drop("notes")


def test_a_lease_that_is_taken_away_fences_its_holder_off(tmp_path: Path) -> None:
    """Only that very holder: one that came in between keeps it."""
    path = tmp_path / "journal.db"
    with running(path) as process:
        held = holder(path)
        assert held is not None
        assert (held.pid, held.owner, held.lives_here, held.stopped) == (process.pid, "holder", True, False)
        with Journal(path) as journal:
            take_away(journal, held, "me")
            assert holder(path) is None
            with Lease(journal, "next") as lease:
                assert lease.fence == held.fence + 2
                with pytest.raises(LeaseHeld, match="another run meanwhile"):
                    take_away(journal, held, "me")
                lease.check()


def test_a_journal_that_is_no_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """A link to a device or a pipe would else get our mode, for the whole machine."""
    path = tmp_path / "journal.db"
    os.mkfifo(path, 0o644)
    mode = path.stat().st_mode
    with pytest.raises(BackendUnavailable, match="no file"):
        Journal(path)
    assert path.stat().st_mode == mode


def test_opened_twice_by_one_process_it_keeps_its_locks(tmp_path: Path) -> None:
    """Whoever closes it elsewhere must not take itself for the last one: what is written afterwards would be lost."""
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        Journal(path).close()
        elsewhere = f"from hybridrag.journal import Journal; from pathlib import Path; Journal(Path({str(path)!r})).close()"
        subprocess.run([sys.executable, "-c", elsewhere], check=True)
        journal.open_pause("notes", "run", None)
        assert open_pauses(path) == ["notes"]
    assert open_pauses(path) == ["notes"]
