"""LightRAG's PGGraphStorage: a graph in Apache AGE as a target and as a source, on a real AGE and with a real LightRAG."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from hybridrag.model.data import Slot
from tests.conftest import Server
from tests.support.stores import AGE, difference, example, move, store

GRAPH = frozenset({Slot.GRAPH})


@pytest.fixture
async def sql(age_server: Server, age_database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(age_server.dsn(age_database))
    yield opened
    await opened.close()


async def records(store, namespace: str) -> dict[str, dict]:
    return {
        key: fields
        async for batch in store.reader().read(namespace, rows=7)
        for key, fields in zip(batch.keys, batch.fields, strict=True)
    }


async def test_there_and_on_to_tables_of_the_same_database(
    age_server: Server, age_database: str, sql
) -> None:
    target = store(age_server, age_database, graph=AGE)
    written = await move(example().reader(), target)
    report = await difference(example().reader(), target)
    assert (report.equal, report.records) == (True, written)
    tables = store(age_server, age_database, slots=GRAPH)
    await move(target.reader(), tables, "o-2")
    assert (await difference(example().reader(), tables)).equal
    assert await sql.fetchval("SELECT count(*) FROM lightrag_graph_nodes") > 0
    facts, _ = await target.observe()
    print(facts)
    print(await target.glance())
