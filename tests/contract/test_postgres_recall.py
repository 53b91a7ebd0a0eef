"""Workspaces that share an index: what a search finds with and without the settings that LightRAG is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import asyncpg
import numpy as np
import pytest

from hybridrag.backends.postgres.copy_binary import Encoder
from hybridrag.backends.postgres.recall import measure
from hybridrag.backends.postgres.rows import Shape
from hybridrag.backends.postgres.spec import VectorIndexSpec
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.model.data import Batch, Slot
from hybridrag.model.selection import Embedding
from tests.conftest import Server
from tests.support.stores import postgres, store

SHARED = Embedding(model="shared", dim=64)
TABLE = "lightrag_vdb_chunks_shared_64d"
NEIGHBOURS, ROWS = 20, 800


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def similar() -> Callable[[], Batch]:
    """Makes batches of nearly the same documents."""
    rng = np.random.default_rng(3)
    base = rng.standard_normal((ROWS, SHARED.dim)).astype(np.float32)
    keys = [f"chunk-{row}" for row in range(ROWS)]

    def batch() -> Batch:
        vectors = base + rng.standard_normal(base.shape).astype(np.float32) * np.float32(0.05)
        return Batch(namespace="chunks", position=ROWS, keys=keys, fields=[{} for _ in keys], vectors=vectors)

    return batch


@pytest.fixture
async def one_of_21(server: Server, database: str, sql: asyncpg.Connection) -> PostgresStore:
    """A workspace that shares its table with 20 others, which hold nearly the same documents."""
    batch = similar()
    mine = store(server, database, "mine", frozenset({Slot.VECTOR}), SHARED)
    async with mine.open_writer("o-1", "f") as writer:
        await writer.prepare()
        await writer.write(writer.encode(batch()))
        for number in range(NEIGHBOURS):
            encoder = Encoder(Shape("chunks"), f"neighbour_{number}")
            data = encoder.encode(batch(), lambda key: (None, None))
            await sql.copy_to_table(TABLE, source=_once(data), columns=encoder.columns, format="binary")
        await writer.finish(lambda phase: None)
    return mine


async def test_similar_neighbours_hide_a_workspace_unless_the_search_goes_on(
    one_of_21: PostgresStore,
) -> None:
    """LightRAG's defaults find a fraction of what is there; with the settings of `selection`, nearly all."""
    bare = await measure(one_of_21._endpoint, "mine", SHARED, VectorIndexSpec(), "")
    assert bare is not None
    assert bare.share < 0.5
    assert bare.remedy is not None
    assert (
        "raise backends.pg.vector_index.ef_search (now 200), or move it to a backend with isolation: database"
        in str(bare)
    )
    ours = await one_of_21.recall()
    assert ours is not None
    assert (ours.share > 0.95, ours.remedy, ours.queries) == (True, None, 20)
    settings = one_of_21.selection().variables["POSTGRES_SERVER_SETTINGS"]
    assert settings == "hnsw.ef_search=200&hnsw.iterative_scan=relaxed_order"
    # What status says of it, which measures nothing.
    (glance,) = await one_of_21.glance()
    (warning,) = glance.warnings
    assert 'backend "pg": its databases share their vector indexes with 20 other workspaces' in warning
    assert "isolation: database" in warning


async def test_a_database_of_its_own_has_an_index_of_its_own(
    server: Server, database: str, one_of_21: PostgresStore, sql: asyncpg.Connection
) -> None:
    """The same vectors in the same server: even LightRAG's defaults find what an exact search finds, and status is silent."""
    apart = postgres(server, database, isolation="database")
    own = apart.store("unused", "mine", SHARED, frozenset({Slot.VECTOR}))
    name = apart.registry_config("mine")["postgres_database"]
    try:
        async with own.open_writer("o-2", "f") as writer:
            await writer.prepare()
            await writer.write(writer.encode(similar()()))
            await writer.finish(lambda phase: None)
        bare = await measure(own._endpoint, "mine", SHARED, VectorIndexSpec(), "")
        ours = await own.recall()
        assert bare is not None
        assert ours is not None
        assert (bare.share > 0.95, ours.share, ours.remedy) == (True, 1.0, None)
        (glance,) = await own.glance()
        assert (glance.warnings, glance.faults, glance.records["chunks"]) == ((), (), ROWS)
        low = await measure(own._endpoint, "mine", SHARED, VectorIndexSpec(), "hnsw.ef_search=1")
        assert low is not None
        assert "isolation" not in str(low)
    finally:
        await sql.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
