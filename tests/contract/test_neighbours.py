"""Nearest-neighbour parity: it sees what digests cannot, and is silent about what makes no difference."""

from __future__ import annotations

import asyncpg
import pytest

from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.milvus.store import MilvusStore
from hybridrag.backends.postgres.tables import table_name
from hybridrag.migrate.neighbours import Parity, Sample, compare_neighbours, nearest_of
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.ports import Reader, Store
from tests.conftest import EXAMPLE, Server
from tests.support.milvus import MilvusServer
from tests.support.stores import EMBEDDING, example, move, store

VECTORS = streams_of({Slot.VECTOR})


async def _parity(source: Reader, target: Store) -> Parity:
    sample = Sample()
    for stream in VECTORS:
        async for batch in source.read(stream):
            sample.add(batch)
    found = await compare_neighbours(source, target, sample, 100)
    assert found is not None
    return found


@pytest.mark.parametrize("index", ["hnsw", "hnsw_halfvec"])
async def test_a_server_finds_the_neighbours_of_the_source(server: Server, database: str, index: str) -> None:
    """float32 to a hundred thousandth; with float16 within the tolerance that is declared for it."""
    source, target = example().reader(), store(server, database, type=index)
    await move(source, target)
    found = await _parity(source, target)
    assert (found.queries, found.agreed, found.listed) == (30, 30, [])
    assert 0 < found.worst <= found.tolerance == (1e-3 if "half" in index else 1e-5)


async def test_files_are_searched_as_nano_does() -> None:
    """Its own file against itself; and the same numbers as the library gives."""
    from nano_vectordb import NanoVectorDB

    source = example()
    assert (await _parity(source.reader(), source)).agreed == 30
    library = NanoVectorDB(96, storage_file=str(EXAMPLE / "archive" / "vdb_entities.json"))
    sample = Sample(3)
    async for batch in source.reader().read("entities"):
        sample.add(batch)
    _, queries = sample.of("entities")
    for query, ours in zip(queries, (await source.nearest("entities", queries, 5, [])).found, strict=True):
        theirs = library.query(query, top_k=5)
        assert [score for _, score in ours] == pytest.approx([row["__metrics__"] for row in theirs], abs=1e-6)


async def test_a_server_that_compares_otherwise_is_named(server: Server, database: str) -> None:
    """Components in another order, in every row: each vector is as near to itself as before, but not to the query."""
    source, target = example().reader(), store(server, database)
    await move(source, target)
    sql = await asyncpg.connect(server.dsn(database))
    table = table_name("chunks", EMBEDDING)
    try:
        await sql.execute(
            f"UPDATE {table} SET content_vector = ARRAY(SELECT v * 3 FROM unnest(content_vector::real[]) v)::vector"
        )
        assert (await _parity(source, target)).agreed == 30, "a longer vector points to the same place"
        await sql.execute(
            f"UPDATE {table} SET content_vector = ARRAY(SELECT v FROM unnest(content_vector::real[]) "
            "WITH ORDINALITY AS a(v, n) ORDER BY n DESC)::vector"
        )
        found = await _parity(source, target)
    finally:
        await sql.close()
    assert (found.queries, found.agreed) == (30, 20)
    assert all(line.startswith('chunks near "') for line in found.listed)


async def test_milvus_finds_the_neighbours_of_the_source(milvus: MilvusServer, vector_database: str) -> None:
    """Among the vectors that are near, as the source says."""
    target = milvus.backend(vector_database).store("unused", "notes", EMBEDDING)
    assert isinstance(target, MilvusStore)
    reader = JsonStore("files", EXAMPLE / "archive", EMBEDDING, target.slots).reader()
    async with target.open_writer("o-1", "fingerprint") as writer:
        await writer.prepare()
        for stream in VECTORS:
            async for batch in reader.read(stream):
                await writer.write(writer.encode(batch))
        await writer.finish(lambda phase: None)
    found = await _parity(reader, target)
    assert (found.queries, found.agreed, found.listed) == (30, 30, [])


async def test_the_nearest_are_the_same_whatever_the_batches() -> None:
    """Constant memory must not cost an answer."""
    reader = example().reader()
    sample = Sample(4)
    async for batch in reader.read("relationships"):
        sample.add(batch)
    _, queries = sample.of("relationships")
    whole = await nearest_of(reader, "relationships", queries, 100_000)
    assert await nearest_of(reader, "relationships", queries, 7) == [
        {key: pytest.approx(score) for key, score in near.items()} for near in whole
    ]
