"""A run that stops in the middle, is taken over and wakes up: it writes nothing any more, and says so."""

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
import yaml

from tests.conftest import Project, clean_environment, digests
from tests.e2e.test_directions import EQUAL, registry, want
from tests.support.milvus import MilvusServer
from tests.support.target import content


@pytest.fixture
def small_batches(project: Project) -> Project:
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(f"{spec.read_text('utf-8')}    migration: {{batch: 20}}\n", encoding="utf-8")
    return project


def journal(project: Project) -> Path:
    return project.folder / "state" / "test" / "journal.db"


@contextlib.contextmanager
def asleep(project: Project, failpoint: str, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """An apply that stopped itself at a point and whose lease has run out since."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", *argv],
        cwd=project.folder,
        env=clean_environment(HYBRIDRAG_FAILPOINTS=failpoint),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until_stopped(process)
        let_time_pass(project)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def let_time_pass(project: Project) -> None:
    """The half minute in which a stopped holder does not renew its lease."""
    with contextlib.closing(sqlite3.connect(journal(project), timeout=0.5)) as db, db:
        db.execute("UPDATE lease SET expires = 1")


def wake(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit code, stderr) of what it does when it goes on."""
    os.killpg(process.pid, signal.SIGCONT)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def assert_refused(code: int, told: str) -> None:
    assert code == 9, told
    assert "was taken over by" in told
    assert "Traceback" not in told
    assert "unexpected" not in told


@pytest.mark.parametrize(
    ("point", "lanes"),
    [
        ("migrate.batch_sent=stop@9", "1"),
        pytest.param("migrate.batch_committed=stop@9", "1", marks=pytest.mark.slow),
        ("migrate.batch_sent=stop@9", "4"),
        ("migrate.copied=stop", "1"),
        pytest.param("verify.done=stop", "1", marks=pytest.mark.slow),
        ("switch.marked=stop", "1"),
        ("resume.begins=stop", "1"),
    ],
)
def test_postgres(small_batches: Project, point: str, lanes: str) -> None:
    """The successor ends the sleeper's sessions on the server; rows, marks and registry stay the successor's."""
    project = small_batches
    assert project.dsn
    with asleep(project, point, "--parallelism", lanes) as sleeper:
        done = project.run("apply", "--auto-approve")
        assert done.returncode == 0, done.stderr
        before, pointed = content(project.dsn, "notes"), registry(project)
        code, told = wake(sleeper)
    assert_refused(code, told)
    assert content(project.dsn, "notes") == before
    assert registry(project) == pointed
    assert EQUAL in project.ok("verify", "notes")
    assert "No changes" in project.ok("plan")


@pytest.mark.parametrize(
    "point",
    [
        "migrate.batch_committed=stop@5",
        pytest.param("migrate.copied=stop", marks=pytest.mark.slow),
        pytest.param("verify.done=stop", marks=pytest.mark.slow),
        "switch.marked=stop",
    ],
)
def test_files(small_batches: Project, point: str) -> None:
    """Locks of the sleeper are replaced, and its open files are not those that are published."""
    project = small_batches
    project.ok("apply", "--auto-approve")
    want(project, "files")
    with asleep(project, point) as sleeper:
        project.ok("apply", "--auto-approve")
        before, pointed = digests(project.data), registry(project)
        code, told = wake(sleeper)
    assert_refused(code, told)
    assert digests(project.data) == before
    assert registry(project) == pointed
    assert EQUAL in project.ok("verify", "notes")
    assert "No changes" in project.ok("plan")


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("migrate.batch_committed=stop@2", marks=pytest.mark.long),
        pytest.param("verify.done=stop", marks=pytest.mark.long),
        "switch.marked=stop",
    ],
)
def test_milvus(small_batches: Project, milvus: MilvusServer, vector_database: str, point: str) -> None:
    """The sleeper's claim lapses, and is not renewed by one who comes back too late."""
    project = small_batches
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["backends"]["mv"] = {"type": "milvus", "uri": milvus.uri, "database": vector_database}
    wanted["databases"]["notes"]["backend"] = {
        "kv": "files",
        "vector": "mv",
        "graph": "files",
        "doc_status": "files",
    }
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    with asleep(project, point) as sleeper:
        project.ok("apply", "--auto-approve")
        pointed = registry(project)
        code, told = wake(sleeper)
    assert_refused(code, told)
    assert registry(project) == pointed
    assert EQUAL in project.ok("verify", "notes")
    assert "No changes" in project.ok("plan")


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["registry.before_replace", pytest.param("registry.replaced", marks=pytest.mark.long)]
)
def test_a_holder_that_sleeps_while_it_changes_the_registry_cannot_be_passed(
    small_batches: Project, point: str
) -> None:
    """Then nobody else can become the holder: the next one is told so, and the sleeper finishes when it wakes."""
    project = small_batches
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridrag", "apply", "--auto-approve"],
        cwd=project.folder,
        env=clean_environment(HYBRIDRAG_FAILPOINTS=f"{point}=stop"),
        start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until_stopped(process)
        done = project.run("apply", "--auto-approve")
        assert done.returncode == 4, done.stderr
        assert "is held by another process, which does not let go" in done.stderr
        code, told = wake(process)
        assert code == 0, told
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "No changes" in project.ok("plan")
