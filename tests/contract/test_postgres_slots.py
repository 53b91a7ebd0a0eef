"""Slots of one workspace that come to Postgres at different times: each store touches its own tables and marks only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.backends.postgres.ledger import Ledger, marks_of, together
from hybridrag.backends.postgres.tables import table_name
from hybridrag.errors import PlanRefused
from hybridrag.model.data import ALL_SLOTS, OTHER_STORES, Range, Slot, streams_of
from hybridrag.model.marks import MarkState
from tests.conftest import Server
from tests.support.stores import EMBEDDING, difference, example, move, store
from tests.support.streams import OWN

KV = frozenset({Slot.KV, Slot.DOC_STATUS})
VECTOR = frozenset({Slot.VECTOR})
GRAPH = frozenset({Slot.GRAPH})
OLD_LEDGER = """
CREATE SCHEMA hybridrag_ledger;
CREATE TABLE hybridrag_ledger.migration (
    workspace text PRIMARY KEY, migration_id text NOT NULL, source_fingerprint text NOT NULL,
    state text NOT NULL CHECK (state IN ('copying', 'copied', 'verified', 'switched')),
    indexes jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE hybridrag_ledger.checkpoint (
    workspace text NOT NULL, namespace text NOT NULL, records bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (workspace, namespace));
INSERT INTO hybridrag_ledger.migration VALUES ('notes', 'o-1', 'f', 'copied', '{"idx": "CREATE INDEX idx"}', '2020-01-01');
INSERT INTO hybridrag_ledger.checkpoint VALUES ('notes', 'edges', 42);
"""


async def _rows(sql: asyncpg.Connection, workspace: str = "notes") -> dict[str, int]:
    """Records by namespace, counted by hand; 0 without a table."""
    found: dict[str, int] = {}
    for item in OWN:
        table = table_name(item.name, EMBEDDING)
        there = await sql.fetchval("SELECT to_regclass($1) IS NOT NULL", table)
        query = f"SELECT count(*) FROM {table} WHERE workspace = $1"
        found[item.name] = await sql.fetchval(query, workspace) if there else 0
    return found


async def test_slots_arrive_one_by_one(server: Server, database: str, sql: asyncpg.Connection) -> None:
    """Vectors first, then documents, then the graph: each is whole, has a mark of its own, and leaves the others alone."""
    done: frozenset[Slot] = frozenset()
    for number, slots in enumerate((VECTOR, KV, GRAPH)):
        part = store(server, database, slots=slots)
        facts, _ = await part.observe()
        assert facts["migration"] is None
        assert {name.partition("/")[2] for name in facts if name.startswith("records/")} == set(
            streams_of(slots)
        )
        assert ("foreign_vectors" in facts) == (slots == VECTOR)
        await move(example().reader(), part, f"o-{number}")
        done |= slots
        held = await _rows(sql)
        assert {name for name, count in held.items() if count} == set(streams_of(done)) - {OTHER_STORES}
        facts, details = await part.observe()
        assert (facts["migration"], facts["state"], facts["exists"]) == (f"o-{number}", "switched", True)
        assert details["checkpoint_records"] == sum(held.get(name, 0) for name in streams_of(slots))
        assert (await difference(example().reader(), part)).equal
    whole = store(server, database)
    facts, _ = await whole.observe()
    # Three migrations brought them: together they serve, and are no single migration's.
    assert (facts["migration"], facts["state"], facts["exists"]) == (None, "switched", True)
    assert (await difference(example().reader(), whole)).equal
    with pytest.raises(PlanRefused, match="in use by an earlier migration"):
        await move(example().reader(), whole, "o-9")


async def test_a_selection_names_the_classes_of_its_slots_only(server: Server, database: str) -> None:
    selection = store(server, database, slots=VECTOR).selection()
    assert (selection.kv, selection.vector, selection.graph, selection.doc_status) == (
        None,
        "PGVectorStorage",
        None,
        None,
    )
    rest = store(server, database, slots=ALL_SLOTS - VECTOR).selection()
    assert rest.vector is None
    both, whole = rest.beside(selection), store(server, database).selection()
    assert (both.kv, both.vector, both.graph, both.doc_status) == (
        whole.kv, whole.vector, whole.graph, whole.doc_status
    )  # fmt: skip
    assert both.variables == whole.variables


async def test_chunk_vectors_take_tokens_from_chunks_that_are_here_already(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """Where the chunks are kept elsewhere the columns stay NULL; where they came months ago, they are used."""
    await move(example().reader(), store(server, database, "alone", slots=VECTOR))
    await move(example().reader(), store(server, database, slots=KV), "o-1")
    await move(example().reader(), store(server, database, slots=VECTOR), "o-2")
    table = table_name("chunks", EMBEDDING)
    query = f"SELECT count(*), count(tokens), count(chunk_order_index) FROM {table} WHERE workspace = $1"
    rows, tokens, order = await sql.fetchrow(query, "alone")
    assert rows > tokens == order == 0
    rows, tokens, order = await sql.fetchrow(query, "notes")
    assert rows == tokens == order > 0
    await sql.execute(f"UPDATE {table} SET tokens = -1 WHERE workspace = 'notes'")
    assert await store(server, database, slots=VECTOR).related() == []
    assert await store(server, database).related() == [
        f"{rows:,} chunk vectors disagree with their chunk in tokens or order"
    ]


async def test_an_abandoned_copy_is_cleared_slot_by_slot(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """A copy of everything that was given up, then only its vectors again: the rest stays as it is, marks included."""
    await move(example().reader(), store(server, database), "o-1", state="copied")
    before = await _rows(sql)
    assert await move(
        example().reader(), store(server, database, slots=VECTOR), "o-2", state="copied"
    ) == sum(before[name] for name in streams_of(VECTOR))
    assert await _rows(sql) == before
    marks = await marks_of(sql, "notes", ALL_SLOTS)
    assert {slot: mark.migration for slot, mark in marks.items()} == {
        Slot.KV: "o-1", Slot.DOC_STATUS: "o-1", Slot.GRAPH: "o-1", Slot.VECTOR: "o-2"
    }  # fmt: skip
    with pytest.raises(PlanRefused, match="taken over"):  # a part of it is another migration's
        await store(server, database).mark("o-1", MarkState.VERIFIED)
    assert {mark.state for mark in (await marks_of(sql, "notes", ALL_SLOTS)).values()} == {"copied"}
    with pytest.raises(PlanRefused, match="unfinished copy of another database"):
        await move(example().reader(), store(server, database, slots=GRAPH), "stranger-1")


async def test_two_writers_of_different_slots_do_not_wait_for_each_other(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    other = await asyncpg.connect(server.dsn(database))
    try:
        assert await Ledger(sql, "notes", VECTOR).lock()
        assert await Ledger(other, "notes", KV).lock()
        assert await Ledger(other, "other", VECTOR).lock()
        third = await asyncpg.connect(server.dsn(database))
        assert not await Ledger(third, "notes", ALL_SLOTS).lock()
        assert await Ledger(third, "notes", GRAPH).lock(), "what was taken on the way was given back"
        await third.close()
    finally:
        await other.close()


async def test_slots_that_arrive_at_the_same_time(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """Two writers in an empty database: LightRAG creates the tables for one after the other."""
    parts = [store(server, database, slots=slots) for slots in (VECTOR, KV | GRAPH)]
    await asyncio.gather(*(move(example().reader(), part, f"o-{n}") for n, part in enumerate(parts)))
    assert (await difference(example().reader(), store(server, database))).equal


async def test_marks_of_an_earlier_version_speak_for_every_slot_and_are_kept(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    await sql.execute(OLD_LEDGER)
    old = await marks_of(sql, "notes", KV)
    assert set(old) == KV
    assert together(old, KV) == ("o-1", "copied", "f")
    facts, _ = await store(server, database, slots=GRAPH).observe()
    assert (facts["migration"], facts["state"]) == ("o-1", "copied")
    await store(server, database).mark("o-1", MarkState.VERIFIED)
    rows = await sql.fetch(
        "SELECT slot, state, indexes::text, started_at::date::text FROM hybridrag_ledger.migration ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [
        ("doc_status", "verified", "{}", "2020-01-01"),
        ("graph", "verified", "{}", "2020-01-01"),
        ("kv", "verified", "{}", "2020-01-01"),
        ("vector", "verified", '{"idx": "CREATE INDEX idx"}', "2020-01-01"),
    ]
    assert await Ledger(sql, "notes").ranges() == [Range(namespace="edges", done=42)]
    await store(server, database).mark(
        "o-1", MarkState.SWITCHED
    )  # and once more changes nothing but the state
    assert len(await marks_of(sql, "notes", ALL_SLOTS)) == 4


async def test_lightrag_opens_a_database_whose_slots_lie_in_two_places(
    server: Server, database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    """Only the vectors are in Postgres; LightRAG keeps the rest in files and finds its tables as it wants them."""
    part = store(server, database, slots=VECTOR)
    await move(example().reader(), part)
    before = await _rows(sql)
    await LightRagSchema().create(part.selection(), EMBEDDING)
    assert await _rows(sql) == before
