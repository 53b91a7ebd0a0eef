"""Postgres as a source: what it tells of itself, that reading leaves no trace, and that every record arrives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from hybridrag.backends.postgres.reading import PostgresReader
from hybridrag.backends.postgres.tables import table_name
from hybridrag.errors import BackendUnavailable, NotFound, SourceUnreadable
from hybridrag.migrate.copying import copy
from hybridrag.model.data import BY_NAME, Batch, Slot
from hybridrag.model.findings import Examination
from hybridrag.model.selection import Embedding
from tests.conftest import Server
from tests.support.stores import EMBEDDING, difference, example, meter, move, store
from tests.support.streams import NAMES

CHANGES = {
    "full_docs": "content = content || 'x'",
    "text_chunks": "tokens = tokens + 1",
    "llm_response_cache": "return_value = ''",
    "doc_status": "updated_at = updated_at",
    "nodes": "properties = '{}'",
    "edges": "properties = properties",
    "entities": "content_vector = content_vector",
    "relationships": "file_path = ''",
    "chunks": "tokens = NULL",
}


class Dying:
    """A reader that dies after some batches."""

    def __init__(self, reader: PostgresReader, batches: int) -> None:
        self._reader = reader
        self._left = batches

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        async with contextlib.aclosing(self._reader.read(namespace, skip=skip, rows=rows)) as stream:
            async for batch in stream:
                self._left -= 1
                if not self._left:
                    raise asyncio.CancelledError
                yield batch

    async def fingerprint(self) -> str:
        return await self._reader.fingerprint()

    async def unfinished(self) -> list[str]:
        return []


async def _counters(sql: asyncpg.Connection) -> list[tuple[object, ...]]:
    await sql.execute("SELECT pg_stat_force_next_flush()")
    await asyncio.sleep(0.3)
    rows = await sql.fetch(
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables ORDER BY 1"
    )
    return [tuple(row) for row in rows]


async def test_from_postgres_to_another_database_and_another_workspace_of_the_same(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    """Every record is equal on the other side, and nobody can tell from the source that it was read."""
    source = store(server, database)
    other = f"{database}_other"
    await filled.execute(f"CREATE DATABASE {other}")
    try:
        before = (
            await _counters(filled),
            await filled.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"),
        )
        async with source.reader().snapshot() as frozen:
            elsewhere = store(server, other, "moved")
            written = await move(frozen, elsewhere)
            report = await difference(frozen, elsewhere)
        assert (report.equal, report.records) == (True, written)
        after = (
            await _counters(filled),
            await filled.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"),
        )
        assert before[0] == after[0]
        fingerprint = await source.reader().fingerprint()
        third = store(server, database, "third")
        await move(source.reader(), third)
        assert (await difference(source.reader(), third)).equal
        assert (await difference(example().reader(), third)).equal
        assert await source.reader().fingerprint() == fingerprint
    finally:
        await filled.execute(f"DROP DATABASE {other} WITH (FORCE)")


async def test_a_killed_copy_goes_on_where_it_was(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    """Rows come in the order in which they lie, so that a number of rows is a place to go on from."""
    source, target = store(server, database).reader(), store(server, database, "copy")
    before = 0
    for batches in (3, 30, 30, 20):
        async with target.open_writer("o-9", "fingerprint") as writer:
            done = await writer.prepare()
            assert sum(done.values()) >= before
            before = sum(done.values())
            with pytest.raises(asyncio.CancelledError):
                await copy(Dying(source, batches), writer, NAMES, done, 5, meter())
    async with target.open_writer("o-9", "fingerprint") as writer:
        await copy(source, writer, NAMES, await writer.prepare(), 50, meter())
        await writer.finish(lambda phase: None)
    assert (await difference(source, target)).equal


async def test_the_fingerprint_changes_with_every_committed_write_and_with_nothing_else(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    """Insert, update and delete in every stream; not a neighbour's, not an uncommitted one, not housekeeping."""
    reader = store(server, database).reader()
    seen = {await reader.fingerprint()}

    async def changed() -> bool:
        now = await reader.fingerprint()
        new = now not in seen
        seen.add(now)
        return new

    for name in NAMES:
        table = table_name(name, EMBEDDING)
        change = CHANGES.get(name, "count = count")
        assert not await changed()
        await filled.execute(f"UPDATE {table} SET {change} WHERE workspace = 'neighbour'")
        assert not await changed(), f"{name}: a neighbour's update"
        transaction = filled.transaction()
        await transaction.start()
        await filled.execute(f"UPDATE {table} SET {change} WHERE workspace = 'notes'")
        assert not await changed(), f"{name}: an uncommitted update"
        await transaction.rollback()
        assert not await changed(), f"{name}: a rolled back update"
        await filled.execute(
            f"UPDATE {table} SET {change} WHERE ctid = (SELECT min(ctid) FROM {table} WHERE workspace = 'notes')"
        )
        assert await changed(), f"{name}: an update"
        await filled.execute(
            f"CREATE TEMP TABLE kept AS SELECT * FROM {table} WHERE workspace = 'notes' LIMIT 1"
        )
        ends = "t.src_id = k.src_id AND t.tgt_id = k.tgt_id" if name == "edges" else "t.id = k.id"
        where = f"t.workspace = 'notes' AND EXISTS (SELECT 1 FROM kept k WHERE {ends})"
        await filled.execute("SET session_replication_role = replica")
        await filled.execute(f"DELETE FROM {table} t WHERE {where}")
        assert await changed(), f"{name}: a delete"
        columns = [
            row[0]
            for row in await filled.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 "
                "AND NOT attisdropped AND attgenerated = ''",
                table,
            )
        ]
        listed = ", ".join(columns)
        await filled.execute(f"INSERT INTO {table} ({listed}) SELECT {listed} FROM kept; DROP TABLE kept")
        assert await changed(), f"{name}: an insert, of the very row that was there before"
        await filled.execute(f"VACUUM (FREEZE, ANALYZE) {table}")
        assert not await changed(), f"{name}: housekeeping"
    await filled.execute("ALTER TABLE lightrag_doc_full DROP COLUMN content")
    assert await changed(), "a column dropped"


async def test_a_snapshot_shows_one_moment_whatever_commits_meanwhile(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    source = store(server, database)
    async with source.reader().snapshot() as frozen:
        fingerprint = await frozen.fingerprint()
        for name in ("edges", "nodes", "full_docs", "chunks"):
            await filled.execute(f"DELETE FROM {table_name(name, EMBEDDING)} WHERE workspace = 'notes'")
        assert await frozen.fingerprint() == fingerprint != await source.reader().fingerprint()
        for name in ("edges", "full_docs", "chunks"):
            held = [batch async for batch in frozen.read(name)]
            assert sum(map(len, held)) > 0
            assert [batch async for batch in source.reader().read(name)] == []


async def test_a_snapshot_whose_session_died_is_told_in_words(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    with contextlib.suppress(BackendUnavailable):  # the holder's own end
        async with store(server, database).reader().snapshot() as frozen:
            await filled.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hybridrag read'"
            )
            await asyncio.sleep(0.2)
            with pytest.raises(BackendUnavailable, match="ended the session that kept the source's snapshot"):
                await frozen.fingerprint()


async def test_a_user_who_may_only_read_is_enough_for_a_source(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    role = f"reader_{database}"
    await filled.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    try:
        source = store(replace(server, user=role, password="pw"), database)
        facts, _ = await source.observe()
        assert (facts["exists"], facts["migration"]) == (True, None)
        async with source.reader().snapshot() as frozen:
            assert await frozen.unfinished() == []
            target = store(server, database, "third")
            await move(frozen, target)
            assert (await difference(frozen, target)).equal
    finally:
        await filled.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_what_it_tells_of_itself(server: Server, database: str, filled: asyncpg.Connection) -> None:
    facts, _ = await store(server, database).observe()
    assert facts["exists"] is True
    assert facts["fingerprint"] == await store(server, database).reader().fingerprint()
    assert facts["dim/lightrag_vdb_entity_hash_emb_96d"] == 96
    assert isinstance(facts["bytes"], int)
    assert facts["bytes"] > 100_000
    assert facts["unfinished_writes"] is None
    # A neighbour's rows change neither the facts nor the size.
    for name in NAMES[::-1]:
        await filled.execute(f"DELETE FROM {table_name(name, EMBEDDING)} WHERE workspace = 'neighbour'")
    again, _ = await store(server, database).observe()
    apart = {name for name in facts if facts[name] != again.get(name)}
    assert apart == {"neighbours/entities", "neighbours/relationships", "neighbours/chunks"}


async def test_an_empty_place_and_a_wrong_model_are_told_in_words(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    facts, _ = await store(server, database).observe()
    assert (facts["exists"], facts["schema"]) == (False, False)
    assert facts["missing"] == f'database "{database}" of backend "pg" holds no rows of workspace "notes"'
    with pytest.raises(NotFound, match="no tables of LightRAG"):
        await store(server, database).reader().fingerprint()
    await move(example().reader(), store(server, database))
    wrong = store(server, database, embedding=Embedding(model="other", dim=96))
    facts, _ = await wrong.observe()
    assert facts["exists"] is False
    assert "has no table lightrag_vdb_chunks_other_96d" in str(facts["missing"])
    with pytest.raises(SourceUnreadable, match="lightrag_vdb_chunks_other_96d"):
        async for _ in wrong.reader().read("chunks"):
            pass


async def test_a_graph_in_apache_age_is_not_taken_for_an_empty_one(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    """PGGraphStorage leaves the graph's tables empty; moving on would lose the graph without a word."""
    await filled.execute("DELETE FROM lightrag_graph_nodes WHERE workspace = 'notes'")
    assert (await store(server, database).observe())[0]["exists"] is True, "a database without a graph is one"
    await filled.execute(
        "CREATE SCHEMA notes_chunk_entity_relation; SET search_path = notes_chunk_entity_relation; "
        "CREATE TABLE _ag_label_vertex (id int); CREATE TABLE base () INHERITS (_ag_label_vertex)"
    )
    assert (await store(server, database).observe())[0]["exists"] is True, "nor does an empty graph matter"
    await filled.execute("INSERT INTO base VALUES (1)")
    facts, _ = await store(server, database).observe()
    assert facts["exists"] is False
    assert 'Apache AGE (graph "notes_chunk_entity_relation")' in str(facts["missing"])
    assert (await store(server, database, "neighbour").observe())[0]["exists"] is True
    without = store(server, database, slots=frozenset(Slot) - {Slot.GRAPH})
    assert (await without.observe())[0]["exists"] is True


async def test_a_database_of_an_older_lightrag_is_read(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    """Columns that came later read as absent; times that had a zone are the same times."""
    wanted = [batch async for batch in store(server, database).reader().read("text_chunks")]
    await filled.execute(
        "ALTER TABLE lightrag_doc_chunks DROP COLUMN heading, DROP COLUMN sidecar; "
        "ALTER TABLE lightrag_doc_chunks ALTER create_time TYPE timestamptz USING create_time AT TIME ZONE 'UTC', "
        "ALTER llm_cache_list DROP DEFAULT, ALTER llm_cache_list TYPE json USING llm_cache_list::json"
    )
    found = [batch async for batch in store(server, database).reader().read("text_chunks")]
    records = [dict(zip(batch.keys, batch.fields, strict=True)) for batch in (*wanted, *found)]
    assert records[0] == records[1] != {}


async def test_a_value_that_no_record_can_hold_is_an_error_in_words(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    await filled.execute("UPDATE lightrag_doc_status SET created_at = 'infinity'")
    with pytest.raises(SourceUnreadable, match='table "lightrag_doc_status" in backend "pg" holds a value'):
        async for _ in store(server, database).reader().read("doc_status"):
            pass


async def test_a_row_without_a_vector_is_refused_and_named(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    source = store(server, database)
    await filled.execute("UPDATE lightrag_vdb_chunks_hash_emb_96d SET content_vector = NULL")
    examination = Examination()
    async for batch in source.reader().read("chunks"):
        source.examine(batch, examination)
    assert examination.refused_total > 0
    assert examination.refused[0][2] == "its vector contains NaN or Infinity"


async def test_a_write_that_is_going_on_is_told_and_a_dead_one_is_not(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    for name in NAMES[::-1]:
        await filled.execute(f"DELETE FROM {table_name(name, EMBEDDING)} WHERE workspace = 'neighbour'")
    reader = store(server, database).reader()
    assert await reader.unfinished() == []
    transaction = filled.transaction()
    await transaction.start()
    await filled.execute("SET LOCAL application_name = 'lightrag'")
    await filled.execute("UPDATE lightrag_doc_full SET content = '' WHERE workspace = 'notes'")
    assert await reader.unfinished() == [
        "an uncommitted write to lightrag_doc_full by user tester (lightrag)"
    ]
    only_vectors = store(server, database, slots=frozenset({Slot.VECTOR}))
    assert await only_vectors.reader().unfinished() == []
    await transaction.rollback()
    assert await reader.unfinished() == []
    # A document in the middle of things, left behind by a LightRAG that died: nobody else is there.
    await filled.execute("UPDATE lightrag_doc_status SET status = 'processing' WHERE workspace = 'notes'")
    found = await reader.unfinished()  # this session was at work a moment ago
    assert len(found) == 1
    assert "being processed, with 1 other client(s) at work" in found[0]
    await filled.close()
    assert await reader.unfinished() == []


async def test_a_neighbours_write_is_none_of_ours(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    async with filled.transaction():
        await filled.execute("UPDATE lightrag_doc_full SET content = 'd' WHERE workspace = 'neighbour'")
        assert await store(server, database).reader().unfinished() == []


def test_every_stream_has_a_change() -> None:
    assert all(name in CHANGES or BY_NAME[name].slot is Slot.KV for name in NAMES)
