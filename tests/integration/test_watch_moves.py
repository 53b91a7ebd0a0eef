"""A watched database is moved to Postgres while files come in: each is there exactly once, whatever is killed."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.integration.test_watch import all_in
from tests.support.target import run_sql
from tests.support.watching import Watched, make_watched, until


@pytest.fixture
def moving(project: Project, tmp_path: Path) -> Iterator[Watched]:
    """A watched database in files that is wanted on the run's server; the daemon was started before that was so."""
    made = make_watched(project, tmp_path / "control")
    yield made
    made.end()


def on_server(watched: Watched) -> dict[str, str]:
    assert watched.project.dsn
    rows = run_sql(
        watched.project.dsn,
        "SELECT file_path, content_hash FROM lightrag_doc_status WHERE length(content_hash) = 64",
    )
    assert len(dict(rows)) == len(rows), "a document stands there twice"
    return dict(rows)


def test_moved_while_it_ingests(moving: Watched) -> None:
    """Every file is in exactly once, whatever side of the switch it came on; the daemon is on Postgres by itself."""
    with moving.daemon():
        for number in range(40):
            moving.put(f"{number}.md", f"text {number}, sleep 0.15")
        until(lambda: len(moving.went_in()) > 2, why=moving.log)
        spec = moving.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("backend: files", "backend: pg"), encoding="utf-8")
        moving.ok("apply", "--auto-approve")
        at_switch = len(moving.in_files())
        moving.put("after.md", "after the switch")
        until(lambda: moving.wanted().items() <= on_server(moving).items(), within=60, why=moving.log)
        until(lambda: moving.is_in("idle"))
        assert moving.look().activity.backend == "pg"
    assert on_server(moving) == moving.wanted()
    assert len(moving.went_in()) == len(set(moving.went_in())) == 41
    assert 0 < at_switch == len(moving.in_files()), "the files were written after the switch"
    assert not moving.events("size")


@pytest.mark.slow
def test_the_apply_is_killed_at_any_moment_while_it_ingests(moving: Watched) -> None:
    """SIGKILL of the reconciler: the daemon goes on by itself, and after the last apply everything is there once."""
    moments = random.Random(6)
    with moving.daemon():
        until(lambda: moving.is_in("idle"), why=moving.log)
        spec = moving.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("backend: files", "backend: pg"), encoding="utf-8")
        for turn in range(8):
            for number in range(5):
                moving.put(f"{turn}-{number}.md", f"text {turn} {number}, sleep 0.2")
            argv = [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--quiet"]
            with subprocess.Popen(argv, cwd=moving.project.folder, env=moving.environ) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=moments.uniform(1, 9))
                process.kill()
            moving.put(f"{turn}-last.md", f"last {turn}")
        moving.ok("apply", "--auto-approve")
        until(lambda: moving.wanted().items() <= on_server(moving).items(), within=90, why=moving.log)
    assert on_server(moving) == moving.wanted()
    assert len(moving.went_in()) == len(set(moving.went_in()))


@pytest.mark.slow
def test_a_kill_between_the_marks_and_the_registry_and_the_daemon_goes_on(moving: Watched) -> None:
    """Postgres was already marked as what serves, the files still serve and are written; the next apply moves that, too."""
    moving.put("before.md", "before")
    with moving.daemon():
        until(lambda: all_in(moving), why=moving.log)
        spec = moving.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("backend: files", "backend: pg"), encoding="utf-8")
        moving.put("during.md", "during")
        killed = moving.project.run(
            "apply", "--auto-approve", **moving.variables, HYBRIDRAG_FAILPOINTS="switch.marked=kill"
        )
        assert killed.returncode == -9
        moving.put("after.md", "after")
        until(lambda: "after.md" in moving.in_files(), within=90, why=moving.log)
        moving.ok("apply", "--auto-approve")
        moving.put("last.md", "last")
        until(lambda: moving.wanted().items() <= on_server(moving).items(), within=60, why=moving.log)
    assert on_server(moving) == moving.wanted()
    assert "last.md" not in moving.in_files()
