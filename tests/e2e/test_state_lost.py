"""What serves stands with the data: without the state folder, from another clone, with a reverted spec, by two at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import Project, Server, clean_environment, make_project
from tests.proof.experiment import Trial
from tests.proof.state_lost import answers
from tests.support.places import forget_state, located, notes_in_files
from tests.support.target import run_sql


def wants(project: Project, backend: str, environment: str = "test") -> None:
    path = project.folder / "hybridrag.yaml"
    spec = yaml.safe_load(path.read_text("utf-8"))
    spec["databases"]["notes"]["backend"] = backend
    spec["environment"] = environment
    path.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")


def test_every_answer_is_the_same_without_the_state_folder(project: Project) -> None:
    """After a move, a way back and a reverted spec; and no question makes a state folder."""
    project.ok("apply", "--auto-approve")
    for backend in ("pg", "files"):
        wants(project, backend)  # "files": somebody reverted the spec, and Postgres serves
        here = answers(project, project.folder)
        kept = project.folder.parent / f"state-{backend}"
        shutil.copytree(project.folder / "state", kept)
        forget_state(project)
        assert answers(project, project.folder) == here
        assert not list(project.folder.glob("state/*/journal.db"))
        shutil.rmtree(project.folder / "state", ignore_errors=True)
        shutil.copytree(kept, project.folder / "state")
    assert "PGKVStorage" in project.ok("render", "notes", "--as", "env")
    assert project.run("plan", "--detailed-exitcode").returncode == 2
    forget_state(project)
    project.ok("rollback", "notes")
    assert located(project).serving(located(project).database("notes")).popitem()[1].type == "json"
    assert {note["revision"] for note in notes_in_files(project).values()} == {2}


def test_a_place_that_does_not_know_of_the_switch_is_a_contradiction_until_somebody_says_what_serves(
    project: Project,
) -> None:
    """A server that came back from an older backup: nothing is planned or used; `adopt` settles it, on either side."""
    project.ok("apply", "--auto-approve")
    assert project.dsn
    run_sql(project.dsn, "DELETE FROM hybridrag_ledger.note RETURNING 1")
    for command in (
        ["plan"],
        ["apply", "--auto-approve"],
        ["render", "notes"],
        ["verify", "notes"],
        ["rollback", "notes"],
    ):
        refused = project.run(*command)
        assert refused.returncode == 5, command
        assert "does not know of it" in refused.stderr
        assert "hybridrag adopt notes --serving" in refused.stderr
    assert json.loads(project.ok("status", "--json"))["databases"][0]["health"] == "error"
    assert project.run("adopt", "notes", "--serving", "nowhere", "--yes").returncode == 6
    project.ok("adopt", "notes", "--serving", "pg", "--yes")
    assert "No changes" in project.ok("plan")
    project.ok("adopt", "notes", "--serving", "files", "--yes")
    assert project.run("plan", "--detailed-exitcode").returncode == 2
    assert "JsonKVStorage" in project.ok("render", "notes", "--as", "env")


def test_a_state_folder_that_does_not_exist_is_no_answer(project: Project) -> None:
    """For commands that only look: a mistyped --state is told, and not taken for an environment without history."""
    for command in (["plan"], ["status"], ["history"], ["verify", "notes"], ["render", "notes"]):
        refused = project.run(*command, "--state", str(project.folder / "mistyped"))
        assert refused.returncode == 6, command
        assert "mistyped" in refused.stderr
    assert not (project.folder / "mistyped").exists()


def test_two_state_folders_on_one_database_have_one_winner(project: Project, tmp_path: Path) -> None:
    """The place itself is claimed: whoever comes second exits with 9, changes nothing, and may try again."""
    first = subprocess.Popen(
        [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--state", str(tmp_path / "one")],
        cwd=project.folder,
        env=clean_environment(HYBRIDRAG_FAILPOINTS="migrate.copied=sleep:6000"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not list((project.data / ".hybridrag").glob("lock-run-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        refused = project.run("apply", "--auto-approve", "--state", str(tmp_path / "two"))
        assert refused.returncode == 9, refused.stderr
        assert "another run of hybridrag is working on" in refused.stderr
    finally:
        assert first.wait(120) == 0
    assert "No changes" in project.ok("apply", "--auto-approve", "--state", str(tmp_path / "two"))


def test_environments_that_share_a_folder_see_each_other(
    project: Project, server: Server, tmp_path: Path
) -> None:
    """prod is served by the files that dev left: dev can neither delete nor replace them, with whatever state folder."""
    prod = make_project(tmp_path / "prod", server, (project.dsn or "").rpartition("/")[2], project.data)
    shutil.rmtree(prod.data)
    spec = yaml.safe_load((prod.folder / "hybridrag.yaml").read_text("utf-8"))
    spec["databases"]["notes"]["path"] = str(project.data)
    (prod.folder / "hybridrag.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    wants(prod, "files", "prod")
    prod.ok("apply", "--auto-approve")
    project.ok("apply", "--auto-approve")
    for command in (
        ["retire", "notes", "--now", "--confirm", "notes"],
        ["rollback", "notes", "--auto-approve"],
    ):
        refused = project.run(*command)
        assert refused.returncode == 5, command
        assert 'of environment "prod"' in refused.stderr
    assert json.loads(prod.ok("status", "--json"))["databases"][0]["health"] == "healthy"


@pytest.mark.slow
def test_random_histories_leave_the_same_answers(tmp_path: Path) -> None:
    """A few runs of the experiment; `python -m tests.proof state-is-lost` has 200."""
    from tests.proof.lab import Lab
    from tests.proof.state_lost import EXPERIMENTS

    trial = Trial(runs=3, seed=20261128)
    with Lab() as lab:
        EXPERIMENTS[0].run(lab, trial)
    assert trial.faults == []
