"""`isolation: database`: each LightRAG database in a Postgres database of its own, made, found and dropped with care."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from hybridrag.backends.postgres.isolation import draft_of
from tests.conftest import DIM, EXAMPLE, Project, Server, clean_environment, digests
from tests.support.target import run_sql

SPEC = """\
version: 1
environment: test
backends:
  files: {{type: json}}
  pg:
    type: postgres
{server}
    isolation: {isolation}
{more}databases:
{databases}"""
ASKED = "Who works at 北京图书馆?"
DATABASE = """\
  {name}:
    path: ./{name}
    backend: {backend}
    embedding: {{model: hash-emb, dim: {dim}, function: "embedding.py:embed"}}
"""


def fields(server: Server, database: str, user: str | None = None) -> str:
    return (
        f"    host: {server.host}\n    port: {server.port}\n    user: {user or server.user}\n"
        f"    database: {database}\n    password: {{env: PW}}"
    )


def write(
    folder: Path,
    server: str,
    *names: str,
    isolation: str = "database",
    backend: str = "pg",
    more: str = "",
    **variables: str,
) -> Project:
    """A project with these databases; call it again to change its spec."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            shutil.copytree(EXAMPLE / "archive", folder / name)
    shutil.copy(EXAMPLE / "embedding.py", folder)
    databases = "".join(DATABASE.format(name=name, backend=backend, dim=DIM) for name in names)
    text = SPEC.format(server=server, isolation=isolation, more=more, databases=databases)
    (folder / "hybridrag.yaml").write_text(text)
    if variables:
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    return Project(folder, folder / names[0], None)


@pytest.fixture
def base(server: Server, database: str) -> Iterator[str]:
    """The configured database; those beside it go at the end."""
    yield database
    for (name,) in there(server, database):
        run_sql(server.dsn("tester"), f'DROP DATABASE "{name}" WITH (FORCE)')


def there(server: Server, base: str) -> list[tuple[str]]:
    """The databases that belong to a configured one, and drafts of any."""
    query = "SELECT datname::text FROM pg_database WHERE starts_with(datname, '{}') ORDER BY 1"
    return [
        *run_sql(server.dsn("tester"), query.format(f"{base}_")),
        *run_sql(server.dsn("tester"), query.format("hybridrag_new_")),
    ]


def said(project: Project, *argv: str, code: int) -> str:
    done = project.run(*argv)
    text = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode, "Traceback" in text) == (code, False), text
    return text


@pytest.mark.slow
def test_two_databases_from_plan_to_retire(tmp_path: Path, server: Server, base: str) -> None:
    """Every command on the way finds the right place, and what is made goes again with its last record."""
    project = write(tmp_path, fields(server, base), "notes", "Papers", PW=server.password)
    before = digests(project.folder)
    plan = said(project, "plan", code=0)
    assert f'create Postgres database "{base}_notes" in pg, copy' in plan
    said(project, "status", code=0)
    said(project, "health", code=0)
    assert there(server, base) == []
    assert digests(project.folder) == before
    project.ok("apply", "--auto-approve")
    notes, papers = (name for (name,) in sorted(there(server, base), key=lambda row: "notes" not in row[0]))
    assert (notes, papers.startswith(f"{base}_papers_"), len(papers)) == (
        f"{base}_notes",
        True,
        len(base) + 16,
    )
    for name, workspace in ((notes, "notes"), (papers, "Papers")):
        rows = run_sql(server.dsn(name), "SELECT workspace, count(*) > 0 FROM lightrag_doc_full GROUP BY 1")
        assert rows == [(workspace, True)]
    assert (
        run_sql(server.dsn(base), "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'lightrag%'")[0][0]
        == 0
    )
    assert run_sql(server.dsn(notes), "SHOW server_encoding") == [("UTF8",)]
    assert "No changes" in project.ok("apply", "--auto-approve")
    registry = (project.folder / "state/test/registry.yaml").read_text()
    assert f"postgres_database: {notes}" in registry
    assert f"postgres_database: {papers}" in registry
    status = json.loads(project.ok("status", "--json"))
    assert [item["problem"] for item in status["databases"]] == [None, None]
    assert status["warnings"] == []
    for name in ("notes", "Papers"):
        assert "equal" in project.ok("verify", name)
        assert "北京图书馆" in project.ok("query", name, ASKED, "--context-only", "--mode", "local")
    project.ok("rollback", "notes", "--yes")
    assert "take back the copy kept in pg" in project.ok("migrate", "notes", "--to", "pg", "--yes")
    project.ok("rollback", "notes", "--yes")
    assert (notes,) in there(server, base)
    text = project.ok("retire", "notes", "--now", "--confirm", "notes")
    assert f'and Postgres database "{notes}" itself' in text
    assert [name for (name,) in there(server, base)] == [papers]


@pytest.mark.long
def test_what_is_not_ours_alone_is_not_dropped(tmp_path: Path, server: Server, base: str) -> None:
    """A database that an administrator made, and one of ours in which somebody put something else, stay."""
    run_sql(server.dsn("tester"), f'CREATE DATABASE "{base}_notes"')
    project = write(tmp_path, fields(server, base), "notes", "papers", PW=server.password)
    assert "create Postgres database" in said(project, "plan", code=0)
    project.ok("apply", "--auto-approve")
    run_sql(server.dsn(f"{base}_papers"), "CREATE TABLE mine (n int)")
    for name in ("notes", "papers"):
        project.ok("rollback", name, "--yes")
        assert "Postgres database" not in project.ok("retire", name, "--now", "--confirm", name)
        assert run_sql(server.dsn(f"{base}_{name}"), "SELECT count(*) FROM lightrag_doc_full") == [(0,)]


@pytest.mark.slow
def test_retire_waits_for_who_is_still_connected(tmp_path: Path, server: Server, base: str) -> None:
    """The records go, the database is told to be in use; the same command finishes later."""
    project = write(tmp_path, fields(server, base), "notes", PW=server.password)
    project.ok("apply", "--auto-approve")
    project.ok("rollback", "notes", "--yes")

    async def held() -> str:
        import asyncpg

        opened = await asyncpg.connect(server.dsn(f"{base}_notes"))
        try:
            return await asyncio.to_thread(
                said, project, "retire", "notes", "--now", "--confirm", "notes", code=4
            )
        finally:
            await opened.close()

    assert "still connected" in asyncio.run(held())
    project.ok("retire", "notes", "--now", "--confirm", "notes")
    assert there(server, base) == []


@pytest.mark.long
def test_isolation_is_never_changed_under_data(tmp_path: Path, server: Server, base: str) -> None:
    """Every command says so, in both directions; a second backend is the way, and it works."""
    place = fields(server, base)
    project = write(tmp_path, place, "notes", isolation="workspace", PW=server.password)
    project.ok("apply", "--auto-approve")
    for lies, here, other in (("workspace", "database", "own"), ("database", "workspace", "pg")):
        at = "pg" if lies == "workspace" else "own"
        wrong = f"  own:\n    type: postgres\n{place}\n    isolation: workspace\n" if at == "own" else ""
        write(tmp_path, place, "notes", isolation=here if at == "pg" else "workspace", backend=at, more=wrong)
        for argv, code in (
            (["plan"], 5), (["apply", "--auto-approve"], 5), (["verify", "notes"], 5), (["retire", "notes", "--now"], 5),
            (["query", "notes", "harbour", "--context-only"], 5), (["status"], 0), (["plan", "--json"], 5),
        ):  # fmt: skip
            text = said(project, *argv, code=code)
            assert f"as isolation: {lies} put it" in text, (argv, text)
        more = f"  own:\n    type: postgres\n{place}\n    isolation: database\n"
        write(tmp_path, place, "notes", isolation="workspace", backend=at, more=more)
        assert "No changes" in said(project, "plan", code=0)
        project.ok("migrate", "notes", "--to", other, "--yes")
        assert "No changes" in said(project, "plan", code=0)
    assert "北京图书馆" in project.ok("query", "notes", ASKED, "--context-only", "--mode", "local")


@pytest.mark.parametrize("lies", ["workspace", "database"])
def test_a_lost_registry_does_not_make_it_look_empty(
    tmp_path: Path, server: Server, base: str, lies: str
) -> None:
    """The folder that it left tells where it is."""
    project = write(tmp_path, fields(server, base), "notes", isolation=lies, PW=server.password)
    project.ok("apply", "--auto-approve")
    shutil.rmtree(project.folder / "state")
    here = "database" if lies == "workspace" else "workspace"
    write(tmp_path, fields(server, base), "notes", isolation=here)
    assert f"as isolation: {lies} put it" in said(project, "plan", code=5)


def test_names_that_would_be_the_same_are_an_error_of_the_spec(tmp_path: Path) -> None:
    """Across backends of one server as well; nothing is connected to."""
    more = "  two:\n    type: postgres\n    database: a\n    isolation: database\n"
    project = write(tmp_path, "    database: a_b", "c", "notes", more=more)
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text().replace(
        "./notes\n    backend: pg", "./notes\n    workspace: b_c\n    backend: two"
    )
    spec.write_text(text)
    assert 'use the same Postgres database "a_b_c"' in said(project, "plan", code=3)
    spec.write_text(text.replace("b_c", "b_d"))
    assert "connection refused" in said(project, "plan", code=4)


@pytest.fixture
def role(server: Server, base: str) -> Iterator[str]:
    """A role that may log in and nothing else; pgvector is not for it to create."""
    name = f"iso_{os.getpid()}"
    run_sql(server.dsn("tester"), f"CREATE ROLE {name} LOGIN PASSWORD 'word'", "SELECT 1")
    yield name
    for (database,) in there(server, base):
        run_sql(server.dsn("tester"), f'DROP DATABASE "{database}" WITH (FORCE)')
    run_sql(server.dsn("tester"), f"DROP ROLE {name}", "SELECT 1")


def test_missing_rights_are_told_with_the_commands_that_give_them(
    tmp_path: Path, server: Server, base: str, role: str
) -> None:
    """Those commands, pasted as they are, make the next plan and apply go through; by connection string as well."""
    project = write(tmp_path, fields(server, base, role), "notes", PW="word")
    text = said(project, "plan", code=4)
    assert f'user "{role}"' in text
    command = f'CREATE DATABASE "{base}_notes" OWNER "{role}" TEMPLATE template0 ENCODING \'UTF8\''
    assert command in text
    assert there(server, base) == []
    trusted = run_sql(
        server.dsn("tester"),
        "SELECT bool_or(trusted) FROM pg_available_extension_versions WHERE name = 'vector'",
    )[0][0]
    assert ("CREATEDB" in text) == trusted
    run_sql(server.dsn("tester"), command)
    if not trusted:
        assert "CREATE EXTENSION vector" in text
        assert "not created, and this user has no right" in said(project, "plan", code=4)
        run_sql(server.dsn(f"{base}_notes"), "CREATE EXTENSION vector", "SELECT 1")
    url = f"postgresql://{role}:{quote('word')}@{server.host}:{server.port}/{base}"
    project = write(tmp_path, "    connection_string: {env: URL}", "notes", URL=url)
    project.ok("apply", "--auto-approve")
    assert "No changes" in project.ok("plan")
    assert f"postgres_database: {base}_notes" in (project.folder / "state/test/registry.yaml").read_text()


@pytest.mark.slow
def test_kills_between_the_creation_and_the_first_mark(tmp_path: Path, server: Server, base: str) -> None:
    """At any moment: the next apply finishes, and what it left is ours to drop, and nothing else is left."""
    project = write(tmp_path, fields(server, base), "notes", PW=server.password)
    run_sql(server.dsn("tester"), f'CREATE DATABASE "{draft_of(f"{base}_notes")}" TEMPLATE template0')
    killed = 0
    for pause in (0.0, 0.05, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridrag", "apply", "--auto-approve"], cwd=project.folder,
            env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        known = there(server, base)
        end = time.monotonic() + 1.5
        while there(server, base) == known and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(pause)
        killed += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert killed >= 2
    project.ok("apply", "--auto-approve")
    assert "No changes" in project.ok("plan")
    assert there(server, base) == [(f"{base}_notes",)]
    project.ok("rollback", "notes", "--yes")
    project.ok("retire", "notes", "--now", "--confirm", "notes")
    assert there(server, base) == []


def test_two_applies_at_once(tmp_path: Path, server: Server, base: str) -> None:
    """From two folders with one name for the Postgres database: one does it, the other is refused in words."""
    projects = [
        write(tmp_path / name, fields(server, base), "notes", PW=server.password) for name in ("a", "b")
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "hybridrag", "apply", "--auto-approve"], cwd=each.folder, env=clean_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for each in projects
    ]  # fmt: skip
    told = [(process.communicate(timeout=200)[0], process.returncode) for process in running]
    assert sorted(code == 0 for _, code in told) == [False, True], told
    assert not [text for text, _ in told if "Traceback" in text]
    assert there(server, base) == [(f"{base}_notes",)]


@pytest.mark.slow
def test_a_server_that_does_not_run_yet_and_slots_that_lie_apart(tmp_path: Path) -> None:
    """Embedded, and only some slots there: the plan says what is made, LightRAG reads both places."""
    server = "    provision: {driver: embedded}"
    project = write(
        tmp_path, server, "notes", backend="{kv: pg, doc_status: files, vector: pg, graph: files}"
    )
    try:
        plan = said(project, "plan", code=0)
        assert "create a Postgres database of its own in pg, copy" in plan
        project.ok("apply", "--auto-approve")
        assert "No changes" in project.ok("plan")
        assert "北京图书馆" in project.ok("query", "notes", ASKED, "--context-only", "--mode", "local")
        assert (
            "postgres_database: hybridrag_notes" in (project.folder / "state/test/registry.yaml").read_text()
        )
    finally:
        project.run("backend", "stop", "pg")


def test_a_new_database_without_files_gets_its_place_at_once(
    tmp_path: Path, server: Server, base: str
) -> None:
    """`db create` has nothing to move, and LightRAG would not make a Postgres database itself."""
    project = write(tmp_path, fields(server, base), "notes", PW=server.password)
    project.ok(
        "db",
        "create",
        "fresh",
        "--path",
        "fresh",
        "--backend",
        "pg",
        "--embedding-dim",
        str(DIM),
        "--no-embedding-model",
    )
    assert there(server, base) == [(f"{base}_fresh",)]
    project.ok("apply", "--auto-approve", "--target", "notes")
    assert [row[0] for row in there(server, base)] == [f"{base}_fresh", f"{base}_notes"]


@pytest.mark.slow
def test_a_database_that_was_dropped_by_hand_is_told(tmp_path: Path, server: Server, base: str) -> None:
    """Beside a healthy one; and no command takes it for an empty one or creates it anew."""
    project = write(tmp_path, fields(server, base), "notes", "papers", PW=server.password)
    project.ok("apply", "--auto-approve")
    run_sql(server.dsn("tester"), f'DROP DATABASE "{base}_notes"')
    status = json.loads(project.ok("status", "--json"))
    told = {item["database"]: item["problem"] for item in status["databases"]}
    assert told["papers"] is None
    assert f'no database "{base}_notes"' in told["notes"]
    said(project, "query", "notes", ASKED, "--context-only", code=4)
    said(project, "plan", code=4)
    assert there(server, base) == [(f"{base}_papers",)]
