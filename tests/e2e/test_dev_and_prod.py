"""Example 02 as its README tells it: one base; dev in a container, prod on a server of one's own over checked TLS."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.conftest import EXAMPLE, Project, Server, digests
from tests.support.docker.case import Case
from tests.support.target import run_sql
from tests.support.tls_proxy import tls_proxy

LOOKED = {
    *(
        "container exec_create",
        "container exec_start",
        "container exec_die",
        "container health_status",
    ),  # its own health check
    *("volume mount", "volume unmount", "container archive-path"),  # reading a file of it
}
PASSWORD = "pr0d cAn4ry @:/?#%'"


@pytest.fixture
def example(tmp_path: Path) -> Project:
    """Both examples side by side, as in the repository; the second one works on the data of the first."""
    shutil.copytree(EXAMPLE.parent, tmp_path / "examples", ignore=shutil.ignore_patterns("state"))
    return Project(
        tmp_path / "examples" / "02-dev-and-prod", tmp_path / "examples" / EXAMPLE.name / "archive", None
    )


@pytest.fixture
def production(server: Server) -> Iterator[str]:
    """What an administrator hands over: a database with pgvector, and a role that owns it. Yields the admin's DSN."""
    word = PASSWORD.replace("'", "''")
    admin = server.dsn("tester")
    run_sql(admin, f"CREATE ROLE hybridrag LOGIN PASSWORD '{word}'", "SELECT 1")
    run_sql(admin, "CREATE DATABASE notes OWNER hybridrag", "SELECT 1")
    run_sql(server.dsn("notes"), "CREATE EXTENSION vector", "SELECT 1")
    yield server.dsn("notes")
    run_sql(admin, "DROP DATABASE notes WITH (FORCE)", "SELECT 1")
    run_sql(admin, "DROP ROLE hybridrag", "SELECT 1")


def test_prod_over_checked_tls(example: Project, server: Server, production: str, tmp_path: Path) -> None:
    """Refused with another authority, applied with the right one, nothing to do the second time; no secret shows."""
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    secrets = example.folder / "secrets"
    secrets.mkdir()
    (secrets / "pg_password").write_text(PASSWORD + "\n", encoding="utf-8")
    before = digests(example.data)
    with tls_proxy("127.0.0.1", server.port, context) as port:
        where = {"PG_HOST": "127.0.0.1", "PG_PORT": str(port)}
        other.cert_pem.write_to_path(str(secrets / "ca.pem"))
        refused = example.run("plan", "--env", "prod", **where)
        assert refused.returncode == 4
        assert "certificate" in refused.stderr
        authority.cert_pem.write_to_path(str(secrets / "ca.pem"))
        pending = example.run("plan", "--env", "prod", "--detailed-exitcode", **where)
        assert pending.returncode == 2
        said = [
            pending.stdout,
            example.ok("apply", "--env", "prod", "--auto-approve", **where),
            example.ok("status", "--env", "prod", "--json", **where),
        ]
        assert "0 missing, 0 extra, 0 different" in said[1]
        assert "No changes" in example.ok("apply", "--env", "prod", "--auto-approve", **where)
        assert json.loads(said[2])["databases"][0]["backend"] == "pg"
    assert run_sql(production, "SELECT count(*) > 0 FROM lightrag_doc_full")[0][0]
    assert digests(example.data) == before
    assert "cAn4ry" not in "".join(said)
    for path in (example.folder / "state").rglob("*"):
        assert path.is_dir() or b"cAn4ry" not in path.read_bytes()


@contextlib.contextmanager
def engine_says(case: Case) -> Iterator[list[str]]:
    """What the engine did to this container, its volume, or any image, while the block ran; filled at its end."""
    found: list[str] = []
    since = time.time()
    yield found
    told = case.docker(
        *("events", "--since", f"{since:.3f}", "--until", f"{time.time():.3f}", "--format", "{{json .}}")
    )
    for line in told.splitlines():
        event = json.loads(line)
        what = f"{event['Type']} {event['Action'].partition(':')[0]}"
        if what not in LOOKED and (event["Type"] == "image" or case.name in line):
            found.append(what)


def test_dev_in_a_container(example: Project, case: Case) -> None:
    """Created from nothing, nothing to do the second time; its state is apart from prod's."""
    overlay = example.folder / "hybridrag.dev.yaml"
    overlay.write_text(overlay.read_text("utf-8").replace("hybridrag-dev-notes", case.name), encoding="utf-8")
    files = ("-f", "hybridrag.yaml", "-f", "hybridrag.dev.yaml")
    with engine_says(case) as nothing:
        assert f'create and start the Postgres container "{case.name}"' in example.ok("plan", *files)
        example.ok("status", *files)
    assert nothing == []
    assert "0 missing, 0 extra, 0 different" in example.ok("apply", "--env", "dev", "--auto-approve")
    assert "No changes" in example.ok("apply", *files, "--auto-approve")
    with engine_says(case) as nothing:
        for look in (("plan",), ("status",), ("health",), ("verify", "notes"), ("validate",)):
            example.ok(*look, *files)
    assert nothing == []
    assert [path.name for path in (example.folder / "state").iterdir()] == ["dev"]
