"""Lanes: several streams and ranges at once give what one after the other gives, whoever is killed, however it goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.postgres import writer as postgres_writer
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.migrate.copying import copy_ranges, ranges_of
from hybridrag.migrate.lanes import in_lanes
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.data import NAMESPACES, Range
from tests.conftest import DIM, Server, clean_environment
from tests.integration.test_kills import (
    APPLY,
    Reference,
    Work,
    assert_finished,
    assert_safe,
    kill,
    make_reference,
    make_work,
)
from tests.support import big_database
from tests.support.stores import EMBEDDING, example, meter, store
from tests.support.target import run_sql

NAMES = [namespace.name for namespace in NAMESPACES]
FIXED = "SELECT namespace, first, last FROM hybridrag_ledger.checkpoint ORDER BY 1, 2"


@pytest.fixture(scope="module")
def small(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """About 5 MB."""
    return make_reference(tmp_path_factory.mktemp("lanes"), server, 5)


@pytest.fixture
async def sql(server: Server, database: str) -> AsyncIterator[asyncpg.Connection]:
    """An administrator's session in the test's empty database."""
    opened = await asyncpg.connect(server.dsn(database))
    yield opened
    await opened.close()


@pytest.fixture
def work(tmp_path: Path, server: Server, small: Reference) -> Iterator[Work]:
    for made in make_work(tmp_path / "project", server, small.data):
        spec = made.project.folder / "hybridrag.yaml"
        spec.write_text(
            spec.read_text().replace("batch: 100", "batch: 10")
        )  # so that streams have several ranges
        yield made


def start(work: Work, lanes: int) -> subprocess.Popen[bytes]:
    (work.project.folder / "events.jsonl").unlink(missing_ok=True)
    with (work.project.folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [*APPLY, "--parallelism", str(lanes)],
            cwd=work.project.folder,
            env=clean_environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def kill_while_copying(work: Work, small: Reference, lanes: int, share: float) -> None:
    """Kill as soon as that share of the records is committed; a run that was quicker than that ends well."""
    process = start(work, lanes)
    while process.poll() is None:
        if committed(work) >= share * _records(small):
            kill(process)
            return
    assert process.returncode == 0, work.said()


def committed(work: Work) -> int:
    if not fixed(work):
        return 0
    return int(run_sql(work.dsn, "SELECT coalesce(sum(records), 0) FROM hybridrag_ledger.checkpoint")[0][0])


def _records(reference: Reference) -> int:
    return sum(reference.content[name][0] for name in reference.content if name.startswith("lightrag"))


def fixed(work: Work) -> list[tuple[object, ...]]:
    if not run_sql(work.dsn, "SELECT to_regclass('hybridrag_ledger.checkpoint')::text")[0][0]:
        return []
    return [tuple(row) for row in run_sql(work.dsn, FIXED)]


TURNS = [((4, 1), 0.3)]
MORE = [((1, 4), 0.3), ((4, 4, 1), 0.1), ((2, 3, 1), 0.9)]
MANY = [((4, 1, 4), 0.5), ((1, 4, 2), 0.2), ((4, 2, 4, 1), 0.4)]


@pytest.mark.parametrize(
    ("turns", "share"),
    [
        *TURNS,
        *(pytest.param(*more, marks=pytest.mark.slow) for more in MORE),
        *(pytest.param(*many, marks=pytest.mark.long) for many in MANY),
    ],
    ids=lambda value: str(value),
)
def test_a_kill_with_one_parallelism_is_finished_with_another(
    work: Work, small: Reference, turns: tuple[int, ...], share: float
) -> None:
    """No record lost or doubled, and the ranges that were fixed first stay what they are."""
    ranges: list[tuple[object, ...]] = []
    for lanes in turns[:-1]:
        kill_while_copying(work, small, lanes, share)
        assert_safe(work, small)
        if found := fixed(work):
            assert found == (ranges or found)
            ranges = found
    process = start(work, turns[-1])
    assert process.wait(300) == 0, work.said()
    assert fixed(work) == (ranges or fixed(work))
    assert_finished(work, small)
    if turns[0] == 4 and ranges:
        assert sum(row[0] == "entities" for row in ranges) > 1, (
            "this database is to have streams of several ranges"
        )


@pytest.mark.parametrize("lanes", [1, 3])
async def test_ranges_and_left_out_records_agree(
    tmp_path: Path, server: Server, database: str, lanes: int
) -> None:
    """Records that stay behind, also at both sides of a border, are left out once; all others arrive once."""
    big_database.build(tmp_path / "data", mb=1, dim=DIM)
    source, target = JsonStore("files", tmp_path / "data", EMBEDDING), store(server, database)
    keys: dict[str, list[str]] = {}
    for name in NAMES:
        keys[name] = [key async for batch in source.reader().read(name) for key in batch.keys]
    records = {name: len(found) for name, found in keys.items()}
    async with target.open_writer("o-1", "fingerprint") as writer:
        done = await writer.prepare()
        ranges = await ranges_of(writer, NAMES, done, records, 1, lanes)
        borders = [part.first for part in ranges if part.namespace == "relationships" and part.first]
        assert len(borders) == lanes - 1
        gone = {1, records["relationships"], *borders, *(border + 1 for border in borders)}
        left_out = LeftOut({"relationships": array("Q", sorted(gone))})
        await copy_ranges(left_out.of(source.reader()), writer, ranges, 7, meter(), lanes=lanes)
        await writer.finish(lambda phase: None)
    for name in NAMES:
        arrived = [key async for batch in target.reader().read(name) for key in batch.keys]
        stays = [
            key for place, key in enumerate(keys[name], 1) if name != "relationships" or place not in gone
        ]
        assert sorted(arrived) == sorted(stays), name


async def test_a_checkpoint_that_somebody_else_moved_stops_the_lane(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """Nothing of the batch is written: two writers of one range can never both commit."""
    source, target = example(), store(server, database)
    batches = [batch async for batch in source.reader().read("entity_chunks", rows=5)]
    async with target.open_writer("o-1", "fingerprint") as writer:
        await writer.prepare()
        await writer.divide([Range(namespace="entity_chunks")])
        async with writer.beside() as other:
            await other.write(other.encode(batches[0]))
            await sql.execute("UPDATE hybridrag_ledger.checkpoint SET records = records + 1")
            with pytest.raises(PlanRefused, match="taken it over"):
                await other.write(other.encode(batches[1]))
    assert await sql.fetchval("SELECT count(*) FROM lightrag_entity_chunks") == len(batches[0])


async def test_a_writer_waits_for_the_lanes_of_its_predecessor(
    server: Server, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are read only when nobody is able to move them any more."""
    monkeypatch.setattr(postgres_writer, "LOCK_PATIENCE_S", 1.0)
    target = store(server, database)
    left = "SELECT pg_advisory_lock_shared(hashtext('hybridrag lane'), hashtext('vector notes'))"
    await sql.execute(left)
    with pytest.raises(BackendUnavailable, match="another session"):
        async with target.open_writer("o-1", "fingerprint"):
            pass
    await sql.execute("SELECT pg_advisory_unlock_all()")
    async with target.open_writer("o-1", "fingerprint") as writer:
        assert await writer.prepare() == {}


async def test_a_ledger_of_an_earlier_version_goes_on(
    server: Server, database: str, sql: asyncpg.Connection
) -> None:
    """Its one checkpoint a stream is one range: the whole stream, from where it stands."""
    source, target = example(), store(server, database)
    batches = [batch async for batch in source.reader().read("entity_chunks", rows=5)]
    async with target.open_writer("o-1", "fingerprint") as writer:
        await writer.prepare()
        await writer.write(writer.encode(batches[0]))
    await sql.execute(
        "ALTER TABLE hybridrag_ledger.checkpoint DROP CONSTRAINT checkpoint_pkey, DROP COLUMN first, "
        "DROP COLUMN last, ADD PRIMARY KEY (workspace, namespace)"
    )
    async with target.open_writer("o-1", "fingerprint") as writer:
        done = await writer.prepare()
        assert done == {"entity_chunks": 5}
        ranges = await ranges_of(writer, ["entity_chunks"], done, {"entity_chunks": 1000}, 1, 4)
        assert ranges == [Range(namespace="entity_chunks", first=0, last=None, done=5)]
        await copy_ranges(source.reader(), writer, ranges, 5, meter(), lanes=4)
    count = await sql.fetchval("SELECT count(*) FROM lightrag_entity_chunks")
    assert count == sum(len(batch) for batch in batches)


HUGE = """
import asyncio, resource, sys
from pathlib import Path
from hybridrag.backends.json.store import JsonReader
from hybridrag.backends.postgres.copy_binary import Encoder
from hybridrag.backends.postgres.rows import Shape
async def main():
    encoder, most, seen = Encoder(Shape("full_docs"), "notes"), 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async for batch in JsonReader(Path(sys.argv[1])).read("full_docs", rows=1000):
        most, seen = max(most, len(encoder.encode(batch))), seen + len(batch)
    print(seen, most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
asyncio.run(main())
"""


def test_records_of_a_megabyte_take_no_more_memory_than_small_ones(tmp_path: Path) -> None:
    """A batch is bounded by bytes: of 300 records of a megabyte a few are held, not the thousand that `batch` allows."""
    with (tmp_path / "kv_store_full_docs.json").open("w") as file:
        text = "text " * 200_000
        file.write("{" + ",".join(f'"doc-{n}": {{"content": "{n} {text}"}}' for n in range(300)) + "}")
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    seen, most, grown_kb = map(int, done.stdout.split())
    assert seen == 300
    assert most < 8 << 20
    assert grown_kb < 60 << 10


def test_lanes_that_fail_end_the_others() -> None:
    """The first error is what is raised, and nothing goes on behind it."""
    ended: list[str] = []

    async def work(job: Range) -> None:
        try:
            if job.namespace == "entities":
                raise ValueError("first")
            await asyncio.sleep(30)
        finally:
            ended.append(job.namespace)

    jobs = [Range(namespace=name) for name in ("nodes", "entities", "edges")]
    with pytest.raises(ValueError, match="first"):
        asyncio.run(in_lanes(jobs, [work] * 3))
    assert sorted(ended) == ["entities", "nodes"], "edges wait for their nodes"
