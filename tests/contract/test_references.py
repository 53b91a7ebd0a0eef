"""What records say of one another: every broken rule is found and named, and what was broken before is told as that."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from hybridrag.api import apply, load, plan
from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.postgres.tables import table_name
from hybridrag.engine import World, verify_database
from hybridrag.migrate.references import RULES, References
from hybridrag.migrate.verifying import Report
from hybridrag.model.data import NAMESPACES
from hybridrag.model.selection import Embedding
from tests.conftest import EXAMPLE, OLD_DATABASE, Project

NAMES = [namespace.name for namespace in NAMESPACES]
GONE = {
    "full_docs": {
        "text_chunks.full_doc_id in full_docs",
        "full_entities.id in full_docs",
        "full_relations.id in full_docs",
        "chunks.full_doc_id in full_docs",
    },
    "doc_status": {"full_docs.id in doc_status"},
    "text_chunks": {
        "doc_status.chunks_list in text_chunks",
        "entity_chunks.chunk_ids in text_chunks",
        "relation_chunks.chunk_ids in text_chunks",
        "nodes.source_id in text_chunks",
        "edges.source_id in text_chunks",
        "entities.source_id in text_chunks",
        "relationships.source_id in text_chunks",
        "chunks.id in text_chunks",
    },
    "nodes": {"edges.ends in nodes", "entities.entity_name in nodes"},
    "edges": {"relationships.pair in edges"},
    "entities": {"nodes.id in entities"},
    "relationships": {"edges.pair in relationships"},
    "chunks": {"text_chunks.id in chunks"},
}
"""Which rules are broken when a record of a stream is gone."""
SHOWN = {"entities": "entity_name", "edges": "src_id", "relationships": "source_id"}
"""The column with the name that is missed then, where it is not the id."""


async def _found(world: World) -> Report:
    report, _ = await verify_database(world, "notes", lambda event: None)
    return report


@contextlib.asynccontextmanager
async def _without_one(sql: asyncpg.Connection, table: str, column: str) -> AsyncIterator[str]:
    """The table without its first row of all that other records name; afterwards as it was before."""
    await sql.execute(f"CREATE TEMP TABLE kept AS TABLE {table}; SET session_replication_role = replica")
    try:
        row = await sql.fetchrow(f"SELECT ctid::text, {column} FROM {table} ORDER BY {column} LIMIT 1")
        assert row is not None
        await sql.execute(f"DELETE FROM {table} WHERE ctid = $1::text::tid", row[0])
        yield row[1]
    finally:
        await sql.execute(f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept")
        await sql.execute("SET session_replication_role = origin")


@pytest.mark.slow
async def test_each_rule_that_is_broken_in_the_target_alone_is_named(project: Project) -> None:
    """Take one record away after the switch, of each stream that others name: exactly the right rules are told."""
    env = load(project.folder / "hybridrag.yaml")
    assert (await apply(await plan(env))).outcome == "done"
    report = await _found(env.world)
    assert (report.equal, report.references, report.rules) == (True, [], len(RULES))
    assert report.parity is not None
    assert report.parity.agreed == report.parity.queries == 30
    assert {name for names in GONE.values() for name in names} == {rule.name for rule in RULES}
    embedding = env.world.database("notes").embedding
    sql = await asyncpg.connect(project.dsn)
    try:
        for stream, rules in GONE.items():
            async with _without_one(sql, table_name(stream, embedding), SHOWN.get(stream, "id")) as name:
                report = await _found(env.world)
            assert {broken.rule.name for broken in report.references} == rules, stream
            assert all(broken.new == broken.names == 1 for broken in report.references if stream != "nodes")
            assert all(name in str(broken) for broken in report.references), stream
            assert not report.equal
            assert report.missing + sum(len(moved.lost) for moved in report.since.values()) == 1
    finally:
        await sql.close()
    assert (await _found(env.world)).equal


@pytest.mark.slow
async def test_what_is_broken_in_the_source_stops_nothing_and_is_told(project: Project) -> None:
    """A chunk that is not there, named by an entity of the source: moved as it is, told, and no failure."""
    file = project.data / "kv_store_entity_chunks.json"
    entities = json.loads(file.read_text("utf-8"))
    one, other = list(entities)[:2]
    entities[one]["chunk_ids"].append("chunk-of-long-ago")
    file.write_text(json.dumps(entities), "utf-8")
    told = project.ok("apply", "--auto-approve", "--json")
    assert "1 chunks that entities name do not exist (as in the source)" in told
    shown = project.ok("verify", "notes")
    assert "1 chunks that entities name do not exist, as in the source" in shown
    assert '"chunk-of-long-ago"' in shown
    found = json.loads(project.ok("verify", "notes", "--json"))
    assert found["equal"]
    assert found["references"]["rules"] == len(RULES)
    (broken,) = found["references"]["broken"]
    assert (broken["names"], broken["as_in_source"]) == (1, 1)
    assert broken["listed"] == [{"record": one, "misses": "chunk-of-long-ago"}]
    assert {name: stream["missing"] for name, stream in found["streams"].items()} == dict.fromkeys(NAMES, 0)
    # One more in the target alone fails, and is told apart from the old one.
    sql = await asyncpg.connect(project.dsn)
    await sql.execute(
        """UPDATE lightrag_entity_chunks SET chunk_ids = chunk_ids || '["chunk-of-today"]' WHERE id = $1""",
        other,
    )
    await sql.close()
    failed = project.run("verify", "notes")
    assert failed.returncode == 7
    assert "1 chunks that entities name do not exist (1 more in the source, too)" in failed.stderr
    assert f'"chunk-of-today" (entity_chunks "{other}")' in failed.stderr


async def test_slots_that_lie_apart_are_looked_at_together(project: Project) -> None:
    """Only the graph moved to the server: its edges are held against vectors and chunks that stayed in the files."""
    spec = project.folder / "hybridrag.yaml"
    slots = "{kv: files, doc_status: files, vector: files, graph: pg}"
    spec.write_text(spec.read_text("utf-8").replace("backend: pg\n", f"backend: {slots}\n"), "utf-8")
    project.ok("apply", "--auto-approve")
    assert json.loads(project.ok("verify", "notes", "--json"))["references"] == {
        "rules": len(RULES),
        "broken": [],
    }
    sql = await asyncpg.connect(project.dsn)
    try:
        async with _without_one(sql, "lightrag_graph_nodes", "id") as name:
            failed = project.run("verify", "notes")
    finally:
        await sql.close()
    assert failed.returncode == 7
    assert f'1 entity vectors have no node: "{name}"' in failed.stderr


@pytest.mark.parametrize("folder", [EXAMPLE / "archive", OLD_DATABASE], ids=["1.5.7", "1.4.9.8"])
async def test_a_database_that_lightrag_made_keeps_every_rule(folder: Path) -> None:
    """No false alarm."""
    reader, names = JsonStore("files", folder, Embedding(model=None, dim=1)).reader(), References()
    for stream in NAMES:
        async for batch in reader.read(stream):
            names.add(batch)
    assert {rule.name: len(missed) for rule, missed in names.broken(NAMES).items() if len(missed)} == {}
