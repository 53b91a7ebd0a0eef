"""A project and a database that a refusal must leave as they were, and what every refusal is like."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import EXAMPLE, Project, Server, make_project
from tests.support.target import relations, run_sql

CANARY = "kanari-7Q!x"
"""The password of the tests' roles; it may stand in no output and in no file of ours."""


@pytest.fixture(scope="module")
def empty(server: Server) -> Iterator[str]:
    """A database that every case must leave as empty as it was."""
    name = f"empty_{os.getpid()}"
    run_sql(server.dsn("tester"), f"CREATE DATABASE {name}")
    yield name
    run_sql(server.dsn("tester"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def untouched(tmp_path: Path, server: Server, empty: str) -> Iterator[Project]:
    """The example wanted in the empty database; a case that fills it fails alone."""
    before = relations(server.dsn(empty))
    yield make_project(tmp_path / "project", server, empty, EXAMPLE / "archive")
    if relations(server.dsn(empty)) != before:
        run_sql(server.dsn("tester"), f"DROP DATABASE {empty} WITH (FORCE)", f"CREATE DATABASE {empty}")


def serving(project: Project) -> str | None:
    """The backend that the registry names, read as a stranger would."""
    found = re.findall(
        r"^    backend: (.*)$", registry(project).read_text() if registry(project).exists() else "", re.M
    )
    return None if not found or found[0] == "null" else found[0]


def registry(project: Project) -> Path:
    return project.folder / "state" / "test" / "registry.yaml"


def steps_begun(project: Project) -> list[str]:
    """Steps of the last apply, from its event stream; empty when it never began."""
    file = project.folder / "events.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line["step"].partition(".")[0] for line in lines if line["type"] == "step_started"]


def words(text: str) -> str:
    return " ".join(text.split())


def assert_refused(
    done: subprocess.CompletedProcess[str], code: int, *says: str, secrets: tuple[str, ...] = (CANARY,)
) -> None:
    """The exit code, the words and the next command; no traceback, no secret."""
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert "unexpected" not in done.stderr, said
    for secret in secrets:
        assert secret not in said
    assert words(done.stderr).startswith("error:"), said
    for part in says:
        assert part in words(done.stderr), f"{part!r} is not in: {words(done.stderr)}"
    assert "→" in done.stderr, f"no next command: {done.stderr}"


def apply(project: Project, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return project.run("apply", "--auto-approve", "--events", "events.jsonl", *more, **variables)
