"""A moment in Postgres: what was written since it, whoever wrote it and however, or that it was too much to tell."""

from __future__ import annotations

import random

import asyncpg
import pytest

from hybridrag.backends.postgres import moment as postgres_moment
from hybridrag.migrate.catching_up import digests_of
from hybridrag.model.data import NAMESPACES
from hybridrag.model.ports import Moment, Reader
from tests.conftest import Server
from tests.support.stores import store

NAMES = [namespace.name for namespace in NAMESPACES]
WRITES = {
    "an update": "UPDATE lightrag_doc_full SET content = content || 'x' WHERE workspace = 'notes' AND id IN "
    "(SELECT id FROM lightrag_doc_full WHERE workspace = 'notes' LIMIT 3)",
    "a deletion": "DELETE FROM lightrag_doc_chunks WHERE workspace = 'notes' AND id IN "
    "(SELECT id FROM lightrag_doc_chunks WHERE workspace = 'notes' ORDER BY id LIMIT 2)",
    "an insertion": "INSERT INTO lightrag_doc_full (id, workspace, doc_name, content) VALUES ('new', 'notes', 'n', 'c')",
    "one row for another": "WITH gone AS (DELETE FROM lightrag_doc_full WHERE workspace = 'notes' AND id = "
    "(SELECT min(id) FROM lightrag_doc_full WHERE workspace = 'notes')) "
    "INSERT INTO lightrag_doc_full (id, workspace, doc_name, content) VALUES ('other', 'notes', 'n', 'c')",
    "an update that changes nothing": "UPDATE lightrag_doc_status SET status = status WHERE workspace = 'notes'",
    "a neighbour's": "UPDATE lightrag_doc_full SET content = '' WHERE workspace = 'neighbour'",
}


async def _all(reader: Reader, name: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async for batch in reader.read(name, rows=50):
        found.update(digests_of(batch))
    return found


async def _check(moment: Moment, later: Reader) -> None:
    async with moment.until(later) as changes:
        assert changes is not None
        for name in NAMES:
            whole, now = await _all(moment, name), await _all(later, name)
            before, after = await _all(changes.before, name), await _all(changes.after, name)
            assert before.items() <= whole.items()
            kept = {key: digest for key, digest in whole.items() if key not in before}
            assert kept.keys().isdisjoint(after)
            assert {**kept, **after} == now


async def test_postgres_tells_what_was_written_since_a_moment(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    reader = store(server, database).reader()
    chosen = random.Random()
    async with reader.snapshot() as moment:
        await _check(moment, reader)
        for words in chosen.sample(sorted(WRITES), len(WRITES)):
            await filled.execute(WRITES[words])
            await _check(moment, reader)
        async with reader.snapshot() as later:
            await filled.execute("DELETE FROM lightrag_graph_edges WHERE workspace = 'notes'")
            await _check(moment, later)
            await _check(later, reader)


async def test_what_was_under_way_at_the_moment_is_found(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    """Also what a part of a transaction wrote (a savepoint has a number of its own), however many began and ended since."""
    reader = store(server, database).reader()
    other = await asyncpg.connect(server.dsn(database))
    try:
        async with filled.transaction():
            await filled.execute(WRITES["an insertion"])
            async with filled.transaction():
                await filled.execute(WRITES["an update"])
            await other.execute(WRITES["a deletion"])
            async with reader.snapshot() as moment:
                await other.execute(WRITES["a neighbour's"])
                await _check(moment, reader)
                # Not committed yet, and so not there; then it is.
                await filled.execute("SAVEPOINT late")
                held = moment
                await _commit_and_check(filled, held, reader)
    finally:
        await other.close()


async def _commit_and_check(filled: asyncpg.Connection, moment: Moment, reader: Reader) -> None:
    await filled.execute("COMMIT")
    await filled.execute("BEGIN")  # for the block that began the first one
    await _check(moment, reader)


async def test_too_much_of_postgres_is_left_to_a_whole_pass(
    server: Server, database: str, filled: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_moment, "MOST", 2)
    reader = store(server, database).reader()
    async with reader.snapshot() as moment:
        await filled.execute(WRITES["an update"])
        async with moment.until(reader) as changes:
            assert changes is None
