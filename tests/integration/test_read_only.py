"""Looking never writes, and no secret ever leaves the connection."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import EXAMPLE, Project, Server, clean_environment, make_project
from tests.support.target import run_sql
from tests.support.traces import snapshot, writes

CORE = "Kanari9Zx"
PASSWORD = f"""p@s/:é %41'"$x{{y}}{CORE}#\\&?"""
"""Every character that a URL, a shell, YAML, JSON or SQL would treat; whatever the quoting, CORE would be seen."""


@pytest.fixture
def quiet(server: Server) -> Iterator[Server]:
    """The run's server without its own housekeeping, which writes whenever it likes."""
    run_sql(server.dsn("tester"), "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
    yield server
    run_sql(server.dsn("tester"), "ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()")


@pytest.fixture
def canary(tmp_path: Path, quiet: Server, database: str) -> Iterator[Project]:
    """The example, wanted on a database whose user's password must never be seen."""
    role = f"canary_{os.getpid()}"
    text = PASSWORD.replace("'", "''")
    run_sql(
        quiet.dsn(database),
        "CREATE EXTENSION vector",
        f"CREATE ROLE {role} LOGIN PASSWORD '{text}'",
        f"GRANT ALL ON DATABASE {database} TO {role}",
        f"GRANT ALL ON SCHEMA public TO {role}",
        "SELECT 1",
    )
    user = replace(quiet, user=role, password=PASSWORD)
    project = make_project(tmp_path / "project", user, database, EXAMPLE / "archive")
    (project.folder / ".env").unlink()
    yield project
    run_sql(quiet.dsn(database), f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


LOOKS = (
    ("validate",),
    ("plan", "--detailed-exitcode"),
    ("plan", "--json"),
    ("status",),
    ("verify", "notes"),
    ("drift",),
    ("repair", "notes", "--dry-run"),
    ("status", "--json"),
    ("health",),
    ("backend", "status"),
    ("backend", "status", "notes", "--json"),
)


def test_looking_changes_no_file_and_no_row_and_shows_no_secret(
    canary: Project, quiet: Server, database: str
) -> None:
    """Before, after a kill in the middle (with a live journal), and after the migration; and the password stands nowhere."""
    outputs: list[str] = []

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        done = canary.run(*argv, TEST_PG_PASSWORD=PASSWORD)
        outputs.extend((done.stdout, done.stderr))
        return done

    def look(looks: Sequence[tuple[str, ...]] = LOOKS, **codes: int | None) -> None:
        files, rows = snapshot(canary.folder), writes(quiet, database)
        for argv in looks:
            done = run(*argv)
            expected = (
                codes.get(argv[0], 0) if argv != ("plan", "--detailed-exitcode") else codes.get("changes", 0)
            )
            assert expected in (None, done.returncode), f"{argv}: {done.stdout}{done.stderr}"
        assert snapshot(canary.folder) == files
        assert writes(quiet, database) == rows

    assert not (canary.folder / "state").exists()
    look(verify=6, changes=2, repair=5)

    files = snapshot(canary.folder)
    assert run("plan", "--out", "saved.plan").returncode == 0
    saved = canary.folder / "saved.plan"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert snapshot(canary.folder).keys() - files.keys() == {"saved.plan"}
    assert json.loads(saved.read_text())["databases"] == ["notes"]
    saved_text = saved.read_text()

    outputs.append(killed_apply(canary))
    look(LOOKS[1:5], verify=None, changes=2)
    assert (canary.folder / "state" / "test" / "journal.db-wal").stat().st_size > 0

    assert run("apply", "saved.plan").returncode == 5
    assert run("apply", "--auto-approve", "--json", "--debug", "--events", "events.jsonl").returncode == 0
    look()

    run("plan", "--debug", "-f", "nope.yaml")
    written = "".join(
        path.read_bytes().decode("latin-1") for path in canary.folder.rglob("*") if path.is_file()
    )
    assert CORE not in saved_text + written
    assert CORE not in "".join(outputs)


def killed_apply(project: Project) -> str:
    """Kill an apply as soon as it copies; what it printed. Its argument lists are searched while it runs."""
    argv = [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--events", "killed.jsonl"]
    environment = clean_environment(TEST_PG_PASSWORD=PASSWORD)
    with subprocess.Popen(
        argv, cwd=project.folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        events = project.folder / "killed.jsonl"
        while '"copying"' not in (events.read_text() if events.exists() else ""):
            assert process.poll() is None
            assert CORE not in argument_lists(process.pid)
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def argument_lists(group: int) -> str:
    """What `ps` shows of a process group."""
    found = ""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(entry.name)) == group:
                found += (entry / "cmdline").read_text("utf-8", "replace")
    return found
