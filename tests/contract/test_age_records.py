"""What a graph in AGE may hold that is no record, or a hostile one: read exactly, or named as a bad record."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.migrate.examining import examine_source
from hybridrag.model.data import EDGE_SEPARATOR, Batch
from hybridrag.model.findings import Examination
from tests.conftest import Server
from tests.contract.test_age import EDGES, GRAPH, NODES, STREAMS, in_age, records, sql, write  # noqa: F401
from tests.support.stores import AGE, difference, example, meter, store


async def test_parallel_edges(in_age: PostgresStore, sql: asyncpg.Connection, age_server: Server) -> None:
    """Equal ones are read as one, whichever way they lead; others are a record that stands twice, and named."""
    count = len(await records(in_age, "edges"))
    await sql.execute(
        f"INSERT INTO {EDGES} (start_id, end_id, properties) SELECT end_id, start_id, properties FROM {EDGES} ORDER BY id LIMIT 3"
    )
    facts, _ = await in_age.observe()
    assert (facts["records/edges"], facts["repeated_edges"]) == (count, 3)
    assert (await difference(example().reader(), in_age)).equal
    assert [len(b) async for b in in_age.reader().read("edges", skip=count - 2, rows=50)] == [2]
    await sql.execute(
        f"INSERT INTO {EDGES} (start_id, end_id, properties) SELECT end_id, start_id, "
        f"ag_catalog.agtype_in('{{\"weight\": 7.0}}') FROM {EDGES} ORDER BY id LIMIT 1"
    )
    _, found = await examine_source(in_age.reader(), example(), STREAMS, 20, meter())
    assert found.refused_total == 1
    assert "edges holds a record twice" in found.refused[0][2]


async def test_what_is_no_record_is_a_bad_record_and_not_the_end(
    in_age: PostgresStore, sql: asyncpg.Connection
) -> None:
    for properties in (
        '{"description": "nameless"}',
        '{"entity_id": 7}',
        '{"entity_id": "a", "x": NaN}',
        '{"entity_id": "b", "x": 0.12345678901234567890123::numeric}',
    ):
        await sql.execute(
            f"INSERT INTO {NODES} (properties) VALUES (ag_catalog.agtype_in($a${properties}$a$))"
        )
    await sql.execute(
        f"INSERT INTO {NODES} (properties) VALUES (ag_catalog.agtype_in("
        '\'{"entity_id": "c::numeric \\\\", "n": 12::numeric, "f": 1.5::numeric, "a": [2::numeric, "3::numeric"]}\'))'
    )
    await sql.execute(
        f"INSERT INTO {EDGES} (start_id, end_id, properties) VALUES ('1', '2', ag_catalog.agtype_in('{{}}'))"
    )
    _, found = await examine_source(in_age.reader(), in_age, STREAMS, 20, meter())
    assert [reason.partition(" (record")[0] for _, _, reason in found.refused] == [
        "the node has no entity_id",
        "the node has no entity_id",
        "it holds NaN or Infinity",
        "it holds a number with more digits than a double has",
        "the edge leads to a node that does not exist there, or has no entity_id",
    ]
    read = (await records(in_age, "nodes"))["c::numeric \\"]
    assert read == {"entity_id": "c::numeric \\", "n": 12, "f": 1.5, "a": [2, "3::numeric"]}


_TEXT = st.text(max_size=40) | st.sampled_from(
    ["$$", "\\", '"', "'", "\\u0041", "\n", "::numeric", "", "\x7f", "x" * 100_000, "😀\U0010ffff"]
)
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.dictionaries(_TEXT, _VALUE, max_size=5)


@pytest.fixture(scope="module")
def empty_graph(age_server: Server) -> str:
    """A database whose graph LightRAG has made."""

    async def make() -> None:
        admin = await asyncpg.connect(age_server.dsn("postgres"))
        await admin.execute("DROP DATABASE IF EXISTS age_hostile WITH (FORCE)")
        await admin.execute("CREATE DATABASE age_hostile")
        await admin.close()
        prepared = await asyncpg.connect(age_server.dsn("age_hostile"))
        await prepared.execute("CREATE EXTENSION age")
        await prepared.close()
        await write(store(age_server, "age_hostile", graph=AGE, slots=GRAPH), {}, {})

    asyncio.run(make())
    return "age_hostile"


@given(nodes=st.dictionaries(_TEXT, _FIELDS, min_size=1, max_size=6), data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@pytest.mark.slow
def test_whatever_a_record_holds(
    age_server: Server, empty_graph: str, nodes: dict[str, Any], data: Any
) -> None:
    """What examine lets through is read back as it said, number by number and character by character."""
    target = store(age_server, empty_graph, graph=AGE, slots=GRAPH)

    def accepted(namespace: str, found: dict[str, Any]) -> dict[str, Any]:
        batch = Batch(namespace=namespace, position=1, keys=list(found), fields=list(found.values()))
        form = target.examine(batch, Examination())
        return dict(zip(form.keys, form.fields, strict=True))

    good = accepted("nodes", nodes)
    names = sorted(good) or [""]
    ends = st.tuples(st.sampled_from(names), st.sampled_from(names)).map(
        lambda p: EDGE_SEPARATOR.join(sorted(p))
    )
    pairs = data.draw(st.dictionaries(ends, _FIELDS, max_size=4)) if good else {}
    linked = accepted("edges", {k: v for k, v in pairs.items() if k.count(EDGE_SEPARATOR) == 1})

    async def there_and_back() -> None:
        cleaner = await asyncpg.connect(age_server.dsn(empty_graph))
        await cleaner.execute(f"TRUNCATE {NODES}, {EDGES}, hybridrag_ledger.migration")
        await cleaner.close()
        await write(target, good, linked)
        assert await records(target, "nodes") == good
        assert await records(target, "edges") == linked
        mending = target.mending()
        fetched = await mending.fetch("nodes", list(good))
        assert dict(zip(fetched.keys, fetched.fields, strict=True)) == good
        fetched = await mending.fetch("edges", list(linked))
        assert dict(zip(fetched.keys, fetched.fields, strict=True)) == linked
        assert sorted([key async for group in mending.keys("edges") for key in group]) == sorted(linked)

    asyncio.run(there_and_back())
