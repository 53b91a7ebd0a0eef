"""Workspaces that share one Postgres database: nobody's rows are touched but one's own."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest

from hybridrag.errors import PlanRefused
from hybridrag.model.marks import MarkState
from tests.conftest import EXAMPLE, Project, Server, make_project
from tests.support.places import forget_notes

TABLES = ("lightrag_doc_full", "lightrag_vdb_entity_hash_emb_96d", "lightrag_graph_edges")


async def counts(dsn: str, workspace: str) -> list[int]:
    opened = await asyncpg.connect(dsn)
    try:
        return [
            await opened.fetchval(f"SELECT count(*) FROM {table} WHERE workspace = $1", workspace)
            for table in TABLES
        ]
    finally:
        await opened.close()


@pytest.mark.slow
async def test_a_second_database_leaves_its_neighbour_alone(
    project: Project, server: Server, database: str, tmp_path: Path
) -> None:
    """Another workspace in the same tables: both are whole, and the first is not written by the second's move."""
    project.ok("apply", "--auto-approve")
    other = make_project(tmp_path / "other", server, database, EXAMPLE / "archive")
    spec = other.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text().replace("backend: pg\n", "backend: pg\n    workspace: neighbour\n"))
    assert "shared_index" in other.ok("plan")
    other.ok("apply", "--auto-approve")
    assert await counts(project.dsn or "", "notes") == await counts(project.dsn or "", "neighbour")
    assert "equal" in project.ok("verify", "notes")
    assert "equal" in other.ok("verify", "notes")


async def test_an_unfinished_copy_of_another_database_is_not_taken_over(
    project: Project, server: Server, database: str, tmp_path: Path
) -> None:
    """Two projects that name the same workspace: the second is refused, and the first one's rows stay."""
    project.ok("apply", "--auto-approve")
    opened = await asyncpg.connect(project.dsn)
    await opened.execute("UPDATE hybridrag_ledger.migration SET state = 'verified'")
    await opened.close()
    await asyncio.to_thread(forget_notes, project)
    before = await counts(project.dsn or "", "notes")
    other = make_project(tmp_path / "other", server, database, EXAMPLE / "archive")
    done = other.run("apply", "--auto-approve")
    assert done.returncode == 5
    assert "unfinished copy of another database" in done.stderr
    assert await counts(project.dsn or "", "notes") == before


async def test_a_copy_that_was_taken_over_is_not_switched_to(
    project: Project, server: Server, database: str
) -> None:
    """Between verification and switch the mark on the target is asked once more, in the statement that changes it."""
    from hybridrag.api import load

    project.ok("apply", "--auto-approve")
    shutil.rmtree(project.folder / "state")
    env = load(project.folder / "hybridrag.yaml")
    item = env.world.database("notes")
    with pytest.raises(PlanRefused, match="taken over by another migration"):
        await env.world.store(item, "pg").mark("another-migration", MarkState.SWITCHED)


async def test_a_reader_that_stops_early_lets_go(project: Project) -> None:
    """Whoever stops in mid-stream (an error, Ctrl-C) is not kept waiting by the rows still on their way."""
    from hybridrag.api import load

    project.ok("apply", "--auto-approve")
    env = load(project.folder / "hybridrag.yaml")
    stream = env.world.store(env.world.database("notes"), "pg").reader().read("edges", rows=1)
    assert len(await stream.__anext__()) == 1
    await asyncio.sleep(0.3)  # the next group waits in the queue by now, and another one for its place
    await asyncio.wait_for(stream.aclose(), 10)


def test_a_name_that_lightrag_takes_and_its_server_does_not(project: Project) -> None:
    """Quotes, dots, hyphens and spaces, in an own Postgres database; who is told only WORKSPACE is warned."""
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text().replace("backend: pg\n", 'backend: pg\n    workspace: it\'s "v1.0"-3f2a\n')
    spec.write_text(text.replace("    host:", "    isolation: database\n    host:"))
    warning = 'lightrag-server makes "it_s__v1_0__3f2a" of WORKSPACE'
    assert warning in " ".join(project.ok("plan").split())
    project.ok("apply", "--auto-approve")
    assert warning in " ".join(project.ok("status").split())
    rendered = project.ok("render", "notes")
    assert warning in rendered
    assert "POSTGRES_WORKSPACE='it\\'s \"v1.0\"-3f2a'" in rendered
    assert "healthy" in project.ok("status")
    assert "527 records equal" in project.ok("rollback", "notes", "--yes")
