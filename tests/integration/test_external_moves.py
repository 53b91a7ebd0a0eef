"""Moved to an external Postgres: its limits are told first, its settings hold, TLS goes all the way, no secret shows."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import ssl
import stat
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from hybridrag.backends.postgres.embedded_place import free_port
from tests.conftest import Server
from tests.support.external import CORE, PASSWORD, authority, fields, make, refused, role, words  # noqa: F401
from tests.support.target import run_sql
from tests.support.tls_proxy import tls_proxy


def test_limits_of_the_server_are_told_before_anything_begins(
    tmp_path: Path, server: Server, database: str, role: str
) -> None:
    """Too few connections for the pool, with the number that fits; sessions that are read-only."""
    admin = server.dsn(database)
    place = {"host": server.host, "port": server.port, "user": role, "database": database}
    backend = fields(**place, password="{env: PW}")
    run_sql(admin, f"ALTER ROLE {role} CONNECTION LIMIT 6", "SELECT 1")
    refused(make(tmp_path, backend), "allows this user 6 connections", "pool.max to 4", PW=PASSWORD)
    make(tmp_path, backend + "\n    pool: {max: 4}").ok("plan", PW=PASSWORD)
    run_sql(admin, f"ALTER ROLE {role} CONNECTION LIMIT 2", "SELECT 1")
    refused(make(tmp_path, backend), "2 connections", "raise max_connections", PW=PASSWORD)
    run_sql(admin, f"ALTER ROLE {role} CONNECTION LIMIT -1", "SELECT 1")
    run_sql(admin, f"ALTER DATABASE {database} SET default_transaction_read_only = on", "SELECT 1")
    refused(make(tmp_path, backend), "default_transaction_read_only", "ran full", PW=PASSWORD)


@pytest.mark.slow
def test_a_whole_migration_over_tls(
    tmp_path: Path, server: Server, database: str, role: str, authority: trustme.CA
) -> None:
    """verify-full, two hosts of which the first is dead, settings; LightRAG goes the same way; no secret anywhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with tls_proxy("127.0.0.1", server.port, context) as port:
        url = (
            f"postgresql://{role}:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()},127.0.0.1:{port}/{database}"
            f"?sslmode=verify-full&sslrootcert={quote(str(tmp_path / 'ca.pem'), safe='')}"
            "&options=-c%20statement_timeout%3D30s%20-c%20hnsw.ef_search%3D50"
        )
        project = make(tmp_path / "project", "    connection_string: {env: URL}")
        said: list[str] = []

        def run(*argv: str) -> str:
            done = project.run(*argv, URL=url)
            assert done.returncode in (0, 2), done.stdout + done.stderr
            said.append(done.stdout + done.stderr)
            return done.stdout

        seen: set[bytes] = set()
        over = threading.Event()
        watching = threading.Thread(target=_watch, args=(seen, over))
        watching.start()
        try:
            run("plan", "--out", "saved.plan")
            run("plan", "--json", "--debug")
            run("apply", "saved.plan", "--debug")
        finally:
            over.set()
            watching.join()
        assert "No changes" in run("apply", "--auto-approve")
        run("query", "notes", "harbour", "--context-only")
        for argv in (["status"], ["status", "--json"], ["health"], ["health", "--json"]):
            run(*argv)
    assert not [text for text in said if CORE in text]
    assert any(b"hybridrag" in line for line in seen)
    assert not [line for line in seen if CORE.encode() in line]
    for path in project.folder.rglob("*"):
        if path.is_file() and stat.S_ISREG(path.stat().st_mode):
            assert CORE.encode() not in path.read_bytes(), path
    assert run_sql(server.dsn(database), "SELECT count(*) > 0 FROM lightrag_doc_full")[0][0]


def _watch(seen: set[bytes], over: threading.Event) -> None:
    while not over.wait(0.02):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(path.read_bytes())
            except OSError:
                continue


def test_a_variable_that_is_gone_hides_nothing_else(
    tmp_path: Path, server: Server, database: str, role: str
) -> None:
    """After the switch the string is read again by each command; without it status says so and shows the rest."""
    url = f"postgresql://{role}:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/{database}"
    project = make(tmp_path, "    connection_string: {env: URL}")
    project.ok("apply", "--auto-approve", URL=url)
    done = project.run("status")
    assert "URL" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_is_stale_when_the_string_leads_elsewhere(
    tmp_path: Path, server: Server, database: str, role: str
) -> None:
    """The spec names a variable only, so the plan keeps the address that it was made for; never the password."""
    url = f"postgresql://{role}:{quote(PASSWORD, safe='')}@{{}}:{server.port}/{database}"
    project = make(tmp_path, "    connection_string: {env: URL}")
    project.run("plan", "--out", "saved.plan", URL=url.format("127.0.0.1"))
    done = project.run("apply", "saved.plan", URL=url.format("localhost"))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "backend/pg.address" in words(done.stderr)
    assert CORE not in (project.folder / "saved.plan").read_text() + done.stderr


def test_settings_of_the_session_hold_for_lightrag_too(
    tmp_path: Path, server: Server, database: str, role: str
) -> None:
    """`options` with a search_path puts LightRAG's tables there, and the next plan finds them; hosts as fields."""
    run_sql(server.dsn(database), f"CREATE SCHEMA app AUTHORIZATION {role}", "SELECT 1")
    backend = fields(
        host='"::1,127.0.0.1"', port=server.port, user=role, database=database, password="{env: PW}",
        options='{search_path: "app, public", statement_timeout: 30s}',
    )  # fmt: skip
    project = make(tmp_path, backend)
    project.ok("apply", "--auto-approve", PW=PASSWORD)
    assert "No changes" in project.ok("plan", PW=PASSWORD)
    schemas = "SELECT DISTINCT schemaname::text FROM pg_tables WHERE tablename LIKE 'lightrag%'"
    assert run_sql(server.dsn(database), schemas) == [("app",)]
