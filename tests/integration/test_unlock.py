"""What a person can do about the state: see who holds it, take it away, read what was done, live with damage."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path

import pytest

from hybridrag.journal import Journal, Lease
from tests.conftest import Project, digests
from tests.integration.test_fencing import EQUAL, asleep, assert_refused, journal, registry, wake


def test_a_lease_of_nobody_needs_no_unlocking(project: Project) -> None:
    """Asked before the first apply and after it; nothing is written."""
    before = digests(project.folder)
    assert "Nobody holds the lease of environment test" in project.ok("unlock")
    assert json.loads(project.ok("unlock", "--json")) == {"held": False, "unlocked": False}
    assert "Nothing was done" in project.ok("history")
    assert project.run("show", "2").returncode == 6
    assert digests(project.folder) == before


def test_a_sleeping_run_is_unlocked_and_fenced_off(project: Project) -> None:
    """Refused while its process lives here; taken away by force; the next apply runs at once, the sleeper never again."""
    with asleep(project, "migrate.batch_committed=stop@2") as sleeper:
        with contextlib.closing(sqlite3.connect(journal(project))) as db, db:
            db.execute("UPDATE lease SET expires = 9e9")  # as if it had slept for a moment only
        assert project.run("apply", "--auto-approve").returncode == 9
        refused = project.run("unlock", "--yes")
        assert refused.returncode == 9
        assert f"its process is stopped, but lives on this machine (pid {sleeper.pid})" in refused.stderr
        assert "last heartbeat" in refused.stderr
        asked = project.run("unlock", "--force")
        assert asked.returncode == 5, asked.stderr
        told = json.loads(project.ok("unlock", "--force", "--yes", "--json"))
        assert (told["unlocked"], told["pid"]) == (True, sleeper.pid)
        assert EQUAL in project.ok("apply", "--auto-approve")
        pointed = registry(project)
        assert_refused(*wake(sleeper))
    assert registry(project) == pointed
    assert EQUAL in project.ok("verify", "notes")
    runs = json.loads(project.ok("history", "--json"))
    assert [run["outcome"] for run in runs] == ["done", "failed"]
    assert "was taken over by" in runs[1]["error"]
    shown = json.loads(project.ok("show", runs[0]["run"], "--json"))
    assert [step["step"] for step in shown["steps"]][-1] == "resume.notes"
    assert all(step["outcome"] in ("done", "unchanged") for step in shown["steps"])
    assert shown["spec_digest"]
    text = project.ok("show", runs[0]["run"][:-2])
    assert "migrate.notes  done (" in text
    assert runs[1]["run"] in project.ok("history")


def test_a_holder_elsewhere_is_unlocked_after_one_question(project: Project) -> None:
    """Its process cannot be looked at, and its clock is ahead of ours; nobody can be asked without a terminal."""
    with Journal(journal(project)) as opened, Lease(opened, "somebody"):
        pass
    with contextlib.closing(sqlite3.connect(journal(project))) as db, db:
        db.execute("UPDATE lease SET expires = 9e9, host = 'elsewhere', pid = 7")
    held = project.run("apply", "--auto-approve")
    assert held.returncode == 9
    assert "in the future: this machine's clock was set back" in held.stderr
    refused = project.run("unlock")
    assert refused.returncode == 5
    assert "in the future (a clock was set)" in refused.stderr
    assert "somebody (pid 7 on elsewhere)" in refused.stderr
    assert "hybridrag unlock --yes" in refused.stderr
    assert "Unlocked" in project.ok("unlock", "--yes")
    assert "Nobody holds" in project.ok("unlock", "--yes")


def zero(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(9000))


def cut(path: Path) -> None:
    os.truncate(path, 6000)


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    "damage",
    [*(pytest.param(damage, marks=pytest.mark.slow) for damage in (zero, cut)), garbage, newer, Path.unlink],
)
def test_a_plan_is_right_whatever_became_of_the_journal(project: Project, damage: object) -> None:
    """After a move, and before the next one; who must write says why not, who looks says what is not told."""
    project.ok("apply", "--auto-approve")
    assert callable(damage)
    damage(journal(project))
    before = digests(project.folder / "state")
    lost = damage in (zero, Path.unlink)
    for command in (
        ["plan"],
        ["status"],
        ["plan", "--json"],
        ["status", "--json"],
        ["db", "list"],
        ["verify", "notes"],
    ):
        done = project.run(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert "Traceback" not in done.stderr
        if command[0] in ("plan", "status") and not lost:
            assert "history cannot be read from" in done.stdout + done.stderr
    assert "No changes" in project.ok("plan")
    for command in (["history"], ["show", "2"], ["unlock"]):
        done = project.run(*command)
        assert done.returncode == (1 if not lost else 6 if command[0] == "show" else 0), (
            command,
            done.stderr,
        )
        assert "unexpected" not in done.stderr
    assert digests(project.folder / "state") == before
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text("utf-8").replace("backend: pg", "backend: files"), encoding="utf-8")
    assert "copy 527 records to files" in project.ok("plan")
    done = project.run("apply", "--auto-approve")
    assert done.returncode == (0 if lost else 1), done.stderr
    if not lost:
        assert "journal" in done.stderr
        assert "move the file away" in done.stderr
        journal(project).rename(project.folder / "away")
        project.ok("apply", "--auto-approve")
    assert registry(project)["backend"] == "files"
