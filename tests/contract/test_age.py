"""LightRAG's PGGraphStorage: a graph in Apache AGE as a target and as a source, on a real AGE and with a real LightRAG."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.postgres.age_server import age_problems
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.migrate.catching_up import catch_up
from hybridrag.migrate.copying import copy
from hybridrag.migrate.digest import canonical
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.data import ALL_SLOTS, EDGE_SEPARATOR, Batch, Slot
from tests.conftest import ROOT, Server, clean_environment
from tests.contract.test_postgres_source import Dying
from tests.support.stores import AGE, EMBEDDING, difference, example, meter, move, store

GRAPH = frozenset({Slot.GRAPH})
STREAMS = ("nodes", "edges")
NODES = 'notes_chunk_entity_relation."base"'
EDGES = 'notes_chunk_entity_relation."DIRECTED"'
TABLES = "lightrag_graph_nodes"


@pytest.fixture
async def sql(age_server: Server, age_database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(age_server.dsn(age_database))
    yield opened
    await opened.close()


@pytest.fixture
async def in_age(age_server: Server, age_database: str) -> PostgresStore:
    """The example's graph alone, moved into AGE."""
    target = store(age_server, age_database, graph=AGE, slots=GRAPH)
    await move(example().reader(), target, rows=31)
    return target


async def records(found: Any, namespace: str) -> dict[str, dict[str, Any]]:
    return {
        key: fields
        async for batch in found.reader().read(namespace, rows=7)
        for key, fields in zip(batch.keys, batch.fields, strict=True)
    }


async def write(target: PostgresStore, nodes: dict[str, Any], edges: dict[str, Any]) -> None:
    """Give a target these records, as a migration does."""
    async with target.open_writer("o-1", "fingerprint") as writer:
        await writer.prepare()
        for name, found in (("nodes", nodes), ("edges", edges)):
            batch = Batch(namespace=name, position=len(found), keys=list(found), fields=list(found.values()))
            if found:
                await writer.write(writer.encode(batch))


async def test_there_and_on_to_tables_of_the_same_database_and_back_to_files(
    age_server: Server, age_database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    target = store(age_server, age_database, graph=AGE)
    written = await move(example().reader(), target)
    report = await difference(example().reader(), target)
    assert (report.equal, report.records) == (True, written)
    assert await sql.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'ag_catalog'") == 2, (
        "AGE's own"
    )
    tables = store(age_server, age_database, slots=GRAPH)
    await move(target.reader(), tables, "o-2")
    assert (await difference(example().reader(), tables)).equal
    again = store(age_server, age_database, "again", graph=AGE, slots=GRAPH)
    await move(tables.reader(), again)
    assert (await difference(example().reader(), again)).equal
    files = JsonStore("files", tmp_path, EMBEDDING)
    async with files.open_writer("o-3", "fingerprint") as writer:
        await copy(target.reader(), writer, files_streams(), await writer.prepare(), 200, meter())
        await writer.finish(lambda phase: None)
    back = files.written("o-3")
    for name in files_streams():
        there = [r async for b in back.read(name) for r in zip(b.keys, b.fields, strict=True)]
        here = [r async for b in example().reader().read(name) for r in zip(b.keys, b.fields, strict=True)]
        if name in STREAMS:
            assert sorted(there, key=str) == sorted(here, key=str)
        else:
            assert len(there) == len(here)


def files_streams() -> tuple[str, ...]:
    from hybridrag.model.data import streams_of

    return streams_of(ALL_SLOTS)


async def test_what_a_stranger_sees_and_what_each_look_tells(
    in_age: PostgresStore, sql: asyncpg.Connection
) -> None:
    """The rows are where LightRAG looks for them, its tables are untouched, and all looks count the same."""
    nodes, edges = len(await records(example(), "nodes")), len(await records(example(), "edges"))
    assert await sql.fetchval(f"SELECT count(*) FROM {NODES}") == nodes
    assert await sql.fetchval(f"SELECT count(DISTINCT id::text) FROM {EDGES}") == edges
    assert await sql.fetchval(f"SELECT to_regclass('{TABLES}')") is None
    facts, details = await in_age.observe()
    assert (facts["exists"], facts["records/nodes"], facts["records/edges"]) == (True, nodes, edges)
    assert (facts["state"], details["checkpoint_records"]) == ("switched", nodes + edges)
    (glance,) = await in_age.glance()
    assert (glance.records["nodes"], glance.records["edges"]) == (nodes, edges)
    assert in_age.selection().graph == "PGGraphStorage"


async def test_what_lightrag_itself_wrote_into_age_arrives(
    age_server: Server, age_database: str, sql: asyncpg.Connection
) -> None:
    variables = {
        "POSTGRES_HOST": age_server.host, "POSTGRES_PORT": str(age_server.port), "POSTGRES_USER": age_server.user,
        "POSTGRES_PASSWORD": age_server.password, "POSTGRES_DATABASE": age_database,
    }  # fmt: skip
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.support.lightrag_on_age", "notes"],
        cwd=ROOT, env=clean_environment(**variables), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    source = store(age_server, age_database, graph=AGE)
    assert (await source.observe())[0]["exists"] is True
    for name in STREAMS:
        assert await records(source, name) == canonical(told[name]), name
    assert len(told["nodes"]) > 15
    target = store(age_server, age_database, slots=GRAPH)
    await move(store(age_server, age_database, graph=AGE, slots=GRAPH).reader(), target)
    assert (await difference(source.reader(), target)).equal
    assert await sql.fetchval(f"SELECT count(*) FROM {TABLES} WHERE workspace = 'notes'") == len(
        told["nodes"]
    )


@pytest.mark.slow
async def test_a_killed_copy_goes_on_where_it_was(age_server: Server, age_database: str) -> None:
    source, target = example().reader(), store(age_server, age_database, graph=AGE, slots=GRAPH)
    for batches in (2, 4, 9):
        async with target.open_writer("o-9", "fingerprint") as writer:
            done = await writer.prepare()
            with pytest.raises(asyncio.CancelledError):
                await copy(Dying(source, batches), writer, STREAMS, done, 5, meter())
    async with target.open_writer("o-9", "fingerprint") as writer:
        assert sum((await writer.prepare()).values()) > 10
        await copy(source, writer, STREAMS, await writer.prepare(), 50, meter())
        await writer.finish(lambda phase: None)
    assert (await difference(source, target)).equal
    later = store(age_server, age_database, "later", slots=GRAPH)
    for batches in (2, 9):
        async with later.open_writer("o-10", "fingerprint") as writer:
            with pytest.raises(asyncio.CancelledError):
                await copy(
                    Dying(target.reader(), batches), writer, STREAMS, await writer.prepare(), 5, meter()
                )
    async with later.open_writer("o-10", "fingerprint") as writer:
        await copy(target.reader(), writer, STREAMS, await writer.prepare(), 50, meter())
    assert (await difference(source, later)).equal


async def test_neighbours_are_left_alone_and_a_shared_graph_is_refused(
    in_age: PostgresStore, age_server: Server, age_database: str
) -> None:
    """AGE turns what is no letter into "_": workspaces "a-b" and "a_b" are one graph."""
    before = await in_age.reader().fingerprint()
    for workspace in ("a-b", "default"):
        other = store(age_server, age_database, workspace, graph=AGE, slots=GRAPH)
        await move(example().reader(), other)
        assert (await difference(example().reader(), other)).equal
    one, same = (store(age_server, age_database, name, graph=AGE, slots=GRAPH) for name in ("a-b", "a_b"))
    async with same.open_writer("another-1", "fingerprint") as writer:
        with pytest.raises(PlanRefused, match="in use by an earlier migration"):
            await writer.prepare()
    await one.destroy_kept("o-1")
    assert (await one.observe())[0]["records/nodes"] == 0
    assert await in_age.reader().fingerprint() == before
    assert (await difference(example().reader(), in_age)).equal


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            f'UPDATE {NODES} SET properties = ag_catalog.agtype_in(\'{{"entity_id": "Zoë Müller"}}\')'
            f" WHERE properties::ag_catalog.agtype = (SELECT properties FROM {NODES} LIMIT 1)",
            None,
        ),
        (f"DELETE FROM {NODES} WHERE ctid = (SELECT ctid FROM {NODES} LIMIT 1)", "missing"),
        (f"DELETE FROM {EDGES} WHERE ctid = (SELECT ctid FROM {EDGES} LIMIT 1)", "missing"),
        (
            f"UPDATE {EDGES} SET properties = ag_catalog.agtype_in('{{}}') WHERE ctid = (SELECT ctid FROM {EDGES} LIMIT 1)",
            "different",
        ),
    ],
)
async def test_verification_finds_what_was_changed_in_age(
    in_age: PostgresStore, sql: asyncpg.Connection, statement: str, said: str | None
) -> None:
    before = await in_age.reader().fingerprint()
    await sql.execute(f"SET search_path = ag_catalog, public; {statement}")
    assert await in_age.reader().fingerprint() != before
    report = await difference(example().reader(), in_age)
    assert not report.equal
    assert said is None or said in {found.kind for found in report.listed}


async def test_single_records_are_put_and_removed(in_age: PostgresStore, sql: asyncpg.Connection) -> None:
    """A node that is put stays the vertex that its edges lead to; one that goes takes its edges along."""
    await in_age.withdraw("o-1")
    nodes, edges = await records(in_age, "nodes"), await records(in_age, "edges")
    name, pair = next(iter(nodes)), next(iter(edges))
    changed = {**nodes[name], "description": "changed"}
    async with in_age.mending().open("o-1") as patcher:
        put = Batch(namespace="nodes", position=2, keys=[name, "new"], fields=[changed, {"entity_id": "new"}])
        await patcher.put(put)
        await patcher.put(put)
        edge = EDGE_SEPARATOR.join(sorted(("new", name)))
        links = Batch(namespace="edges", position=2, keys=[pair, edge], fields=[{"weight": 2}, {"weight": 3}])
        await patcher.put(links)
        await patcher.put(links)
    assert await records(in_age, "nodes") == {**nodes, name: changed, "new": {"entity_id": "new"}}
    assert await records(in_age, "edges") == {**edges, pair: {"weight": 2}, edge: {"weight": 3}}
    async with in_age.mending().open("o-1") as patcher:
        await patcher.remove("nodes", ["new", "never there"])
        await patcher.remove("edges", [pair])
    assert await records(in_age, "edges") == {key: value for key, value in edges.items() if key != pair}
    assert await sql.fetchval(f"SELECT count(*) FROM {EDGES}") == len(edges) - 1


async def test_catching_up_brings_a_finished_copy_up_to_date(
    in_age: PostgresStore, age_server: Server, age_database: str
) -> None:
    await in_age.withdraw("o-1")
    source = store(age_server, age_database, "other", graph=AGE, slots=GRAPH)
    nodes, edges = await records(in_age, "nodes"), await records(in_age, "edges")
    nodes.popitem()
    edges = {k: v for k, v in edges.items() if set(k.split(EDGE_SEPARATOR)) <= nodes.keys()}
    nodes["more"] = {"entity_id": "more"}
    await write(source, nodes, edges)
    wanted, _ = await examine_source(source.reader(), in_age, STREAMS, 50, meter())
    held, _ = await examine_source(in_age.reader(), in_age, STREAMS, 50, meter())
    async with in_age.mending().open("o-1") as patcher:
        reader = LeftOut({}).of(source.reader())
        await catch_up(reader, in_age, in_age.mending(), patcher, wanted, held, 50, meter())
    assert (await difference(source.reader(), in_age)).equal


async def test_a_graph_that_lies_the_other_way_is_not_taken_for_an_empty_one(
    in_age: PostgresStore, age_server: Server, age_database: str
) -> None:
    facts, _ = await store(age_server, age_database).observe()
    assert 'Apache AGE (graph "notes_chunk_entity_relation")' in str(facts["missing"])
    assert "graph_storage: PGGraphStorage" in str(facts["missing"])
    await move(example().reader(), store(age_server, age_database, "tables", slots=GRAPH))
    facts, _ = await store(age_server, age_database, "tables", graph=AGE, slots=GRAPH).observe()
    assert "graph_storage: PGTableGraphStorage" in str(facts["missing"])


@pytest.mark.parametrize("workspace", ["Notes", "2024"])
async def test_a_name_that_lightrag_cannot_use_in_age_is_refused(
    age_server: Server, age_database: str, workspace: str
) -> None:
    facts, _ = await store(age_server, age_database, workspace, graph=AGE, slots=GRAPH).observe()
    assert "LightRAG cannot use a graph in Apache AGE whose name" in str(facts["problem"])


async def test_a_user_without_a_right_is_told_what_the_administrator_types(
    in_age: PostgresStore, sql: asyncpg.Connection, age_server: Server, age_database: str
) -> None:
    role = f"reader_{age_database}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'word'")
    try:
        server = Server(age_server.host, age_server.port, role, "word")
        reader = store(server, age_database, graph=AGE, slots=GRAPH)
        with pytest.raises(BackendUnavailable) as refused:
            await reader.observe()
        assert "GRANT USAGE ON SCHEMA ag_catalog" in str(refused.value.hint)
        await sql.execute(
            f"GRANT USAGE ON SCHEMA ag_catalog TO {role}; GRANT USAGE ON SCHEMA notes_chunk_entity_relation TO {role}; "
            f"GRANT SELECT ON ALL TABLES IN SCHEMA notes_chunk_entity_relation TO {role}"
        )
        assert await records(reader, "nodes") == await records(in_age, "nodes"), "no LOAD is needed to read"
    finally:
        await sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("facts", "what", "hint"),
    [
        ({"age": None, "age_available": None}, "not installed", "apt-get install postgresql-<version>-age"),
        (
            {"age": "1.8.0", "age_available": "1.8.0", "age_usable": True},
            "1.8.0 is too new",
            "install an earlier",
        ),
        ({"age": None, "age_available": "1.5.0"}, "not created", "CREATE EXTENSION age"),
        ({"age": "1.5.0", "age_available": "1.5.0"}, "no right to use", "GRANT USAGE ON SCHEMA ag_catalog"),
        ({"age": "1.5.0", "age_usable": True}, "no right to use", "GRANT SELECT ON ALL TABLES"),
        (
            {"age": "1.5.0", "age_usable": True, "age_catalog": True, "age_preloaded": False},
            "not loaded into new sessions",
            "SET session_preload_libraries = 'age'",
        ),
    ],
)
def test_a_server_that_cannot_take_it(facts: dict[str, Any], what: str, hint: str) -> None:
    ((said, next_step),) = age_problems("pg", facts)
    assert what in said
    assert hint in next_step
