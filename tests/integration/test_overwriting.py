"""A target that holds other data: shown, refused without consent, overwritten with it, and no neighbour is touched."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from hybridrag.backends.postgres.overwriting import make_way
from hybridrag.errors import PlanRefused
from hybridrag.model.data import ALL_SLOTS
from tests.conftest import EXAMPLE, Project, Server, digests, make_project
from tests.support.stores import EMBEDDING, example, move, postgres, store

EQUAL = "0 missing, 0 extra, 0 different"


@pytest.fixture
async def sql(server: Server, database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(server.dsn(database))
    try:
        yield opened
    finally:
        await opened.close()


async def held(sql: asyncpg.Connection, workspace: str) -> dict[str, tuple[int, str]]:
    """(rows, digest over all of them) of every table with workspaces, our ledger's as well."""
    tables = await sql.fetch(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.columns "
        "WHERE column_name = 'workspace' AND table_schema <> 'pg_catalog' ORDER BY 1"
    )
    found = {}
    for (table,) in tables:
        row = await sql.fetchrow(
            f"SELECT count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t WHERE workspace = $1",
            workspace,
        )
        assert row is not None
        if row[0]:
            found[table] = (row[0], row[1])
    return found


async def neighbours(server: Server, database: str) -> None:
    """A finished migration in workspace "other", and LightRAG's own data in "older", of whatever model."""
    await move(example().reader(), store(server, database, "other"), "neighbour-1")
    await move(example().reader(), store(server, database, "older"), "neighbour-2")


async def unmark(sql: asyncpg.Connection, workspace: str) -> None:
    """As if LightRAG had written it without us."""
    for table in ("migration", "checkpoint"):
        await sql.execute(f"DELETE FROM hybridrag_ledger.{table} WHERE workspace = $1", workspace)


@pytest.mark.parametrize("whose", ["LightRAG's own", "a finished copy"])
@pytest.mark.slow
async def test_other_data_gives_way_with_consent_and_no_neighbour_is_touched(
    project: Project, server: Server, database: str, sql: asyncpg.Connection, whose: str
) -> None:
    """Refused without consent and nothing changed; with it the copy is proved, and rollback goes to the source."""
    await neighbours(server, database)
    await move(example().reader(), store(server, database, "notes"), "somebody-1")
    await unmark(sql, "older")
    if whose == "LightRAG's own":
        await unmark(sql, "notes")
        # Vectors of a model that LightRAG used before lie in tables of their own.
        await sql.execute("CREATE TABLE lightrag_vdb_chunks AS TABLE lightrag_vdb_chunks_hash_emb_96d")
    await sql.execute("DELETE FROM lightrag_doc_full WHERE workspace = 'notes' AND id LIKE '%0%'")
    before = {name: await held(sql, name) for name in ("notes", "other", "older")}
    shown = project.ok("plan")
    assert "! overwrite" in shown
    assert 'workspace "notes" in backend "pg" holds' in shown
    assert "text_chunks" in shown
    assert "needs consent: hybridrag apply --allow overwrite" in shown
    refused = project.run("apply", "--auto-approve")
    assert refused.returncode == 5
    assert "--allow overwrite" in refused.stderr
    assert {name: await held(sql, name) for name in before} == before, "nothing may change without consent"
    project.ok("apply", "--auto-approve", "--allow", "overwrite")
    assert EQUAL in project.ok("verify", "notes")
    for name in ("other", "older"):
        assert await held(sql, name) == before[name]
    assert "public.lightrag_vdb_chunks" not in await held(sql, "notes")
    project.ok("rollback", "notes", "--yes")
    assert "json" in project.ok("status")


async def test_migrate_overwrites_with_force_only(
    project: Project, server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """Without it the spec stays as it is."""
    await move(example().reader(), store(server, database, "notes"), "somebody-1")
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text("utf-8").replace("backend: pg", "backend: files"), "utf-8")
    before = spec.read_text("utf-8")
    refused = project.run("migrate", "notes", "--to", "pg")
    assert refused.returncode == 3, "the contract's code for the target"
    assert "the finished copy of another database" in refused.stderr
    assert "--force" in refused.stderr
    assert spec.read_text("utf-8") == before
    assert "! overwrite" in project.ok("migrate", "notes", "--to", "pg", "--dry-run")
    project.ok("migrate", "notes", "--to", "pg", "--force", "--yes")
    assert EQUAL in project.ok("verify", "notes")


async def test_what_serves_another_database_is_never_overwritten(
    project: Project, server: Server, database: str, tmp_path: Path, sql: asyncpg.Connection
) -> None:
    """Told by the registry of this environment, and by that of another one beside it."""
    project.ok("apply", "--auto-approve")
    before = await held(sql, "notes")
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text("utf-8")
    shutil.copytree(project.data, project.folder / "letters")
    letters = (
        "  letters:\n    path: ./letters\n    workspace: notes\n    backend: pg\n"
        '    embedding: {model: hash-emb, dim: 96, function: "embedding.py:embed"}\n'
    )
    moved_away = text.replace("path: ./notes", "path: ./notes\n    workspace: elsewhere")
    spec.write_text(moved_away + letters, "utf-8")
    for argv in (
        ("plan", "--target", "letters"),
        ("apply", "--target", "letters", "--auto-approve", "--allow", "overwrite"),
        ("migrate", "letters", "--to", "pg", "--force", "--yes"),
    ):
        refused = project.run(*argv)
        assert refused.returncode == (3 if argv[0] == "migrate" else 5)
        assert 'serves database "notes"; it is never overwritten' in refused.stderr
    second = text.replace("environment: test", "environment: second").replace("./notes", "./letters")
    spec.write_text(second, "utf-8")
    refused = project.run("apply", "--auto-approve", "--allow", "overwrite")
    assert refused.returncode == 5
    assert 'serves database "notes" of environment "test"; it is never overwritten' in refused.stderr
    assert await held(sql, "notes") == before


async def test_an_unfinished_copy_of_another_is_left_alone(
    project: Project, server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """Whoever makes it may be at work, or go on."""
    await move(example().reader(), store(server, database, "notes"), "somebody-1", "copied")
    before = await held(sql, "notes")
    refused = project.run("apply", "--auto-approve", "--allow", "overwrite")
    assert refused.returncode == 5
    assert "unfinished copy of another database" in refused.stderr
    assert await held(sql, "notes") == before


async def test_what_came_after_the_plan_is_not_overwritten(
    project: Project, server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """Consent is for what was shown: a mark that another migration set meanwhile, or its lock, stops us."""
    await move(example().reader(), store(server, database, "notes"), "somebody-1")
    backend = postgres(server, database)
    endpoint = store(server, database)._endpoint
    with pytest.raises(PlanRefused, match="taken over by another migration meanwhile"):
        await make_way(endpoint, "notes", EMBEDDING, ALL_SLOTS, "somebody-else-2")
    await sql.execute("UPDATE hybridrag_ledger.migration SET state = 'copied' WHERE workspace = 'notes'")
    with pytest.raises(PlanRefused, match="taken over by another migration meanwhile"):
        await make_way(endpoint, "notes", EMBEDDING, ALL_SLOTS, "somebody-1")
    assert backend.name == "pg"
    plan = project.folder / "plan.json"
    await sql.execute("UPDATE hybridrag_ledger.migration SET state = 'switched' WHERE workspace = 'notes'")
    project.ok("plan", "--out", "plan.json")
    await sql.execute("UPDATE lightrag_doc_full SET content = 'new' WHERE workspace = 'notes'")
    stale = project.run("apply", str(plan), "--allow", "overwrite")
    assert stale.returncode == 5
    assert "stale" in stale.stderr


@pytest.mark.slow
async def test_a_cut_off_removal_is_shown_again_and_finished(
    project: Project, server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """What a kill leaves is data of nobody's; every batch was committed."""
    await neighbours(server, database)
    await move(example().reader(), store(server, database, "notes"), "somebody-1")
    before = {name: await held(sql, name) for name in ("notes", "other")}
    endpoint = store(server, database)._endpoint
    removing = asyncio.create_task(make_way(endpoint, "notes", EMBEDDING, ALL_SLOTS, "somebody-1", rows=1))
    while not removing.done():
        await asyncio.sleep(0.01)
        if sum(rows for rows, _ in (await held(sql, "notes")).values()) < 1200:
            removing.cancel()
            break
    with contextlib.suppress(asyncio.CancelledError):
        await removing
    left = await held(sql, "notes")
    assert 0 < len(left) < len(before["notes"])
    assert "hybridrag_ledger.migration" not in left
    assert "holds other data" in project.ok("plan")
    project.ok("apply", "--auto-approve", "--allow", "overwrite")
    assert EQUAL in project.ok("verify", "notes")
    assert await held(sql, "other") == before["other"]


def test_files_in_the_folder_are_moved_aside_and_named(tmp_path: Path, server: Server, database: str) -> None:
    """Nothing of them is lost, and those of no slot of ours stay."""
    project = make_project(tmp_path / "project", server, database, EXAMPLE / "archive")
    project.ok("apply", "--auto-approve")
    other = project.folder / "elsewhere"
    shutil.copytree(EXAMPLE / "archive", other)
    (other / "kv_store_full_docs.json").write_text('{"doc-x": {"content": "precious"}}', "utf-8")
    (other / "mine.txt").write_text("untouched", "utf-8")
    before = digests(other)
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text("utf-8").replace("path: ./notes", "path: ./elsewhere")
    spec.write_text(text.replace("backend: pg", "backend: files"), "utf-8")
    shown = project.ok("plan")
    assert "moved aside to .hybridrag/before-" in shown
    assert project.run("apply", "--auto-approve").returncode == 5
    assert {k: v for k, v in digests(other).items() if ".hybridrag" not in k} == before
    project.ok("apply", "--auto-approve", "--allow", "overwrite")
    (aside,) = (other / ".hybridrag").glob("before-*")
    kept = digests(aside)
    assert kept == {name: digest for name, digest in before.items() if name != "mine.txt"}
    assert (other / "mine.txt").read_text("utf-8") == "untouched"
    assert EQUAL in project.ok("verify", "notes")
