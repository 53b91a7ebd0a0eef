"""The server dies in the middle, or the apply that makes one: told within seconds, and finished by the next `apply`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from hybridrag.backends.postgres.client import while_open
from tests.conftest import EXAMPLE, Project, Server
from tests.integration.test_kills import Work, wait_for
from tests.support import big_database


def test_a_copy_does_not_wait_for_ever_for_a_dead_server(server: Server) -> None:
    """A session that ends while data waits for room to be sent is noticed (asyncpg alone would hang)."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 50_000_000

    async def run() -> None:
        opened, other = (
            await asyncpg.connect(server.dsn("tester")),
            await asyncpg.connect(server.dsn("tester")),
        )
        try:
            await opened.execute("CREATE TEMP TABLE t (c text)")
            pid = await opened.fetchval("SELECT pg_backend_pid()")
            os.kill(pid, signal.SIGSTOP)
            copying = asyncio.ensure_future(
                while_open(opened, opened.copy_to_table("t", source=endless(), format="text"))
            )
            await asyncio.sleep(0.3)
            await other.execute(f"SELECT pg_terminate_backend({pid})")
            os.kill(pid, signal.SIGCONT)
            with pytest.raises(asyncpg.ConnectionDoesNotExistError):
                await asyncio.wait_for(copying, 10)
        finally:
            opened.terminate()
            await other.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(0.3, marks=pytest.mark.slow),
        *(pytest.param(s, marks=pytest.mark.long) for s in (0.0, 0.1, 0.6)),
    ],
)
def test_a_crash_of_the_server_is_told_and_survived(embedded: Project, seconds: float) -> None:
    """SIGKILL of Postgres in the middle of the copy: exit 4 within seconds; the next apply starts it and finishes."""
    shutil.rmtree(embedded.data)
    built = big_database.build(embedded.data, mb=40, dim=96)
    work = Work(embedded, "")
    process = work.start()
    wait_for(lambda: '"phase": "copying"' in work.events() or process.poll() is not None)
    time.sleep(seconds)
    record = next(embedded.folder.glob("**/embedded/pg/server.json"))
    data = Path(json.loads(record.read_text())["data_dir"])
    os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    assert process.wait(30) == 4, work.said()
    assert "unexpected" not in work.said()
    assert work.serving() is None
    told = embedded.ok("apply", "--auto-approve")
    assert f"{built.records:,} records equal, 0 missing, 0 extra, 0 different" in told
    assert "No changes" in embedded.ok("plan")


# --- with an embedded server ---


@pytest.fixture
def embedded() -> Iterator[Project]:
    """The example as it is: its server is created by `apply`. In a folder that the server's account may enter."""
    folder = Path(tempfile.mkdtemp(prefix="hybridrag-kill-"))
    folder.chmod(0o711)
    project = Project(folder / "example", folder / "example" / "archive", None)
    shutil.copytree(EXAMPLE, project.folder)
    file = project.folder / "hybridrag.yaml"
    file.write_text(re.sub(r"^environment: .*$", "environment: test", file.read_text(), flags=re.M))
    yield project
    project.run("backend", "stop", "pg")
    record = next(project.folder.glob("**/embedded/pg/server.json"), None)
    data = json.loads(record.read_text()).get("data_dir") if record else None
    if data:
        shutil.rmtree(Path(data).parent, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_an_apply_killed_while_it_provisions_is_finished_by_the_next(embedded: Project) -> None:
    """Killed over and over while it makes and starts its server, it goes on from what is there."""
    work = Work(embedded, "")
    unfinished = 0
    for seconds in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4):
        work.kill_in("provision.pg", seconds)
        assert work.serving() is None
        unfinished += "validate.archive" not in work.events()[work.events().find("step_started") :]
    assert unfinished >= 3
    assert "0 missing, 0 extra, 0 different" in embedded.ok("apply", "--auto-approve")
    assert "No changes" in embedded.ok("plan")
