"""Vector indexes: every type that LightRAG knows, under its own names, so that it never builds a second one."""

from __future__ import annotations

from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.backends.postgres.building import LEAST_MB, Budget, budget_of
from hybridrag.backends.postgres.indexes import with_settings
from hybridrag.backends.postgres.rows import Shape
from hybridrag.backends.postgres.spec import PostgresSpec
from hybridrag.errors import PlanRefused
from hybridrag.model.data import Batch, Slot
from hybridrag.model.findings import Examination
from hybridrag.model.selection import Embedding
from tests.conftest import Server
from tests.support.stores import EMBEDDING, difference, example, move, postgres, store

VECTOR = frozenset({Slot.VECTOR})
INDEXES = (
    "SELECT c.relname, c.relfilenode::bigint, pg_get_indexdef(c.oid) FROM pg_class c JOIN pg_am a ON a.oid = c.relam "
    "WHERE a.amname IN ('hnsw', 'ivfflat') ORDER BY 1"
)
TYPES = (
    ({"type": "hnsw"}, "USING hnsw (content_vector vector_cosine_ops) WITH (m='16', ef_construction='64')"),
    ({"type": "hnsw_halfvec", "m": 8, "ef_construction": 32},
     "USING hnsw (content_vector halfvec_cosine_ops) WITH (m='8', ef_construction='32')"),
    ({"type": "ivfflat", "lists": 3}, "USING ivfflat (content_vector vector_cosine_ops) WITH (lists='3')"),
    ({"type": "none"}, None),
)  # fmt: skip


@pytest.mark.parametrize(
    ("index", "made"), TYPES, ids=lambda value: value["type"] if type(value) is dict else ""
)
async def test_each_type_is_built_as_lightrag_wants_it(
    server: Server, database: str, sql: asyncpg.Connection, index: dict[str, Any], made: str | None
) -> None:
    """After the load every vector is equal, the index is there, and LightRAG's start leaves it as it is."""
    target = store(server, database, slots=VECTOR, **index)
    await move(example().reader(), target)
    assert (await difference(example().reader(), target)).equal
    facts, _ = await target.observe()
    before = await sql.fetch(INDEXES)
    if made is None:
        assert before == []
        assert await target.recall() is None
    else:
        assert len(before) == 3
        assert all(made in row[2] for row in before)
        assert all(facts[f"index/{name}"] for name in ("entities", "relationships", "chunks"))
    await LightRagSchema().create(target.selection(), EMBEDDING)
    assert await sql.fetch(INDEXES) == before
    assert (await difference(example().reader(), target)).equal
    # And back: what a halfvec column holds arrives elsewhere exactly as it is held.
    other = store(server, database, "other", slots=VECTOR, **index)
    await move(target.reader(), other)
    assert (await difference(target.reader(), other)).equal


async def test_more_than_2000_dimensions_with_halfvec(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    wide = Embedding(model="wide", dim=3000)
    target = store(server, database, slots=VECTOR, embedding=wide, type="hnsw_halfvec")
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((40, 3000), dtype=np.float32)
    keys = [f"ent-{number}" for number in range(40)]
    batch = Batch(namespace="entities", position=40, keys=keys, fields=[{} for _ in keys], vectors=vectors)
    async with target.open_writer("o-1", "f") as writer:
        await writer.prepare()
        await writer.write(writer.encode(batch))
        await writer.finish(lambda phase: None)
    (found,) = [part async for part in target.reader().read("entities")]
    held = target.examine(batch, Examination())
    assert held.vectors is not None
    assert found.vectors is not None
    assert np.array_equal(found.vectors, held.vectors)
    assert 0 < np.abs(found.vectors - vectors).max() < 0.002
    assert (await target.observe())[0]["dim/lightrag_vdb_entity_wide_3000d"] == 3000
    assert len(await sql.fetch(INDEXES)) == 3
    recall = await target.recall()
    assert recall is not None
    assert recall.share > 0.95


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("hnsw", "ivfflat", "an index of type hnsw"),
        ("ivfflat", "hnsw_halfvec", "an index of type ivfflat"),
        ("hnsw_halfvec", "none", "a column of type halfvec"),
    ],
)
async def test_a_neighbours_index_is_never_replaced(
    server: Server, database: str, sql: asyncpg.Connection, first: str, second: str, words: str
) -> None:
    """LightRAG would drop it and rewrite the whole table at its start: refused before LightRAG is asked."""
    await move(example().reader(), store(server, database, "neighbour", slots=VECTOR, type=first))
    before = await sql.fetch(INDEXES)
    with pytest.raises(PlanRefused, match=words) as refused:
        await move(example().reader(), store(server, database, slots=VECTOR, type=second))
    assert f"vector_index.type: {first}" in str(refused.value.hint)
    assert await sql.fetch(INDEXES) == before


SERVER = {"reachable": True, "version_num": 160000, "version": "16", "encoding": "UTF8", "superuser": True,
          "may_create_schema": True, "may_create_tables": True, "standby": False}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "dim", "pgvector", "words", "hint"),
    [
        ("hnsw", 2000, "0.5.0", None, None),
        (
            "hnsw",
            2001,
            "0.8.0",
            "an HNSW index holds at most 2,000 dimensions",
            "type: hnsw_halfvec takes 4,000",
        ),
        (
            "hnsw",
            96,
            "0.4.4",
            "pgvector 0.4.4 is too old for vector_index.type hnsw, which needs 0.5.0",
            "install a newer pgvector",
        ),
        ("hnsw_halfvec", 4000, "0.7.0", None, None),
        ("hnsw_halfvec", 96, "0.6.2", "which needs 0.7.0", "or choose another backends.pg.vector_index.type"),
        ("hnsw_halfvec", 4001, "0.8.0", "a halfvec index holds at most 4,000", "type: none takes 16,000"),
        ("ivfflat", 2000, "0.4.4", None, None),
        ("ivfflat", 2001, "0.8.0", "an IVFFlat index holds at most 2,000", "hnsw_halfvec"),
        ("none", 16000, "0.4.4", None, None),
        ("none", 16001, "0.8.0", "pgvector holds at most 16,000", "present backend"),
    ],
)
def test_what_a_server_or_an_index_cannot_do_is_told_with_a_way_out(
    kind: str, dim: int, pgvector: str, words: str | None, hint: str | None
) -> None:
    backend = postgres(Server("h", 1, "u", "p"), "d", type=kind)
    found = backend.problems({**SERVER, "pgvector": pgvector}, Embedding(model="m", dim=dim))
    if words is None:
        assert found == []
    else:
        (problem,) = found
        assert words in problem.what
        assert hint is not None
        assert hint in str(problem.hint)


@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=4, max_size=4),
    st.floats(65_000, 66_000, width=32),
)
def test_halfvec_holds_what_float16_holds_and_the_rest_is_refused(numbers: list[float], large: float) -> None:
    """Never a silent infinity; what is kept is a fixed point, so that a second move changes nothing."""
    shape = Shape("entities", half=True)
    vectors = np.array([numbers, [large, 0, -large, 1]], dtype=np.float32)
    batch = Batch(namespace="entities", position=2, keys=["a", "b"], fields=[{}, {}], vectors=vectors)
    into = Examination()
    kept = shape.examine(batch, into)
    assert kept.vectors is not None
    assert np.isfinite(kept.vectors).all()
    assert len(kept) + into.refused_total == 2
    assert ("b" in kept.keys) == (large < 65_520)
    again = shape.examine(kept, Examination())
    assert again.vectors is not None
    assert np.array_equal(again.vectors, kept.vectors)


def test_settings_of_others_in_the_same_variable_are_kept() -> None:
    """By key; who set one first keeps it."""
    ours = {"hnsw.ef_search": "200", "hnsw.iterative_scan": "relaxed_order"}
    assert with_settings(None, ours) == "hnsw.ef_search=200&hnsw.iterative_scan=relaxed_order"
    merged = with_settings("search_path=a,b&hnsw.ef_search=77", ours)
    assert merged == "hnsw.ef_search=77&hnsw.iterative_scan=relaxed_order&search_path=a,b"
    assert with_settings("x=y=z", {}) == "x=y=z"


def _spec(**fields: Any) -> PostgresSpec:
    return PostgresSpec.model_validate({"type": "postgres", **fields})


def test_a_build_takes_what_the_machine_and_the_container_can_spare() -> None:
    assert budget_of(_spec()) == Budget(1024, 2)
    assert budget_of(_spec(provision={"driver": "embedded"})).memory_mb >= LEAST_MB
    small = budget_of(_spec(provision={"driver": "docker", "memory": "768m", "shm_size": "1g"}))
    assert small.memory_mb <= 256
    tight = budget_of(_spec(provision={"driver": "docker", "shm_size": "64m"}))
    assert tight.memory_mb == LEAST_MB
