"""A project on an external Postgres that is written in any way, with a password that is hard to write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.conftest import DIM, EXAMPLE, Project, Server
from tests.support.target import run_sql

CORE = "Kanari4Wq"
PASSWORD = f"p@:/?#% 'q {CORE}&\\"

SPEC = """\
version: 1
environment: test
backends:
  files: {{type: json}}
  pg:
    type: postgres
{server}
databases:
  notes:
    path: ./notes
    backend: pg
    embedding: {{model: hash-emb, dim: {dim}, function: "embedding.py:embed"}}
"""


def fields(**values: object) -> str:
    return "\n".join(f"    {name}: {value}" for name, value in values.items())


def make(folder: Path, server: str) -> Project:
    """A project whose backend `pg` is written as `server`; the password in PW_FILE, pw.txt and DATABASE_URL."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "notes").exists():
        shutil.copytree(EXAMPLE / "archive", folder / "notes")
        shutil.copy(EXAMPLE / "embedding.py", folder)
    (folder / "hybridrag.yaml").write_text(SPEC.format(server=server, dim=DIM))
    return Project(folder, folder / "notes", None)


def words(text: str) -> str:
    return " ".join(text.split())


def refused(project: Project, *says: str, code: int = 4, **variables: str) -> None:
    done = project.run("plan", **variables)
    said = words(done.stdout + done.stderr)
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert CORE not in said
    assert code == 3 or "→" in done.stderr
    for part in says:
        assert part in said, f"{part!r} is not in: {said}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def role(server: Server, database: str) -> Iterator[str]:
    """A role with the canary as its password, which owns the database; sessions of it are limited to 30 s."""
    name = f"ext_{os.getpid()}"
    word = PASSWORD.replace("'", "''")
    run_sql(
        server.dsn(database), f"CREATE ROLE {name} LOGIN PASSWORD '{word}'", f"ALTER DATABASE {database} OWNER TO {name}",
        "CREATE EXTENSION vector", f"GRANT ALL ON SCHEMA public TO {name}", "SELECT 1",
    )  # fmt: skip
    yield name
    run_sql(
        server.dsn(database),
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {database} OWNER TO tester",
        f"DROP OWNED BY {name}",
        f"DROP ROLE {name}",
        "SELECT 1",
    )
