"""Whatever a record holds: Postgres gives back exactly what `examine` said, or `examine` refused it with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.json.graphml import edge_key
from hybridrag.backends.postgres.backend import PostgresBackend
from hybridrag.backends.postgres.rows import printable
from hybridrag.backends.postgres.spec import PostgresSpec
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.backends.postgres.tables import TABLES, Kind, table_name
from hybridrag.journal.quarantine import line
from hybridrag.migrate.copying import copy
from hybridrag.migrate.digest import canonical_bytes, digest_stream
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import compare
from hybridrag.model.data import BY_NAME, EDGE_SEPARATOR, NAMESPACES, BadRecord, Batch, Fault, Slot
from hybridrag.model.findings import Examination
from tests.conftest import Server
from tests.support.hostile_records import EMBEDDING, NOISE, any_json, batches

T = TypeVar("T")
WORKSPACE = "röund trip'; --"
NAMES = [namespace.name for namespace in NAMESPACES]
FAST = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class One:
    """A reader of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        yield self._batch

    async def fingerprint(self) -> str:
        return "fingerprint"


class Some:
    """A reader of some streams, of each in batches of any size."""

    def __init__(self, streams: dict[str, Batch]) -> None:
        self._streams = streams

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        whole = self._streams[namespace]
        for start in range(skip, len(whole), rows):
            part = whole.only(range(start, min(start + rows, len(whole))))
            part.position = start + len(part)
            yield part

    async def fingerprint(self) -> str:
        return "fingerprint"

    async def unfinished(self) -> list[str]:
        return []


@dataclass
class Target:
    """A workspace in a real Postgres with LightRAG's own schema, and a loop that everything on it runs in."""

    loop: asyncio.AbstractEventLoop
    store: PostgresStore
    writer: Any
    admin: asyncpg.Connection

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def write(self, batch: Batch) -> None:
        """As a migration does it: the record as the source has it goes in, the writer forms it."""
        meter = Meter(lambda event: None, "migrate.test", "copying", len(batch))
        self.run(copy(One(batch), self.writer, [batch.namespace], {}, 1000, meter))

    def read(self, namespace: str) -> list[Batch]:
        async def collect() -> list[Batch]:
            return [batch async for batch in self.store.reader().read(namespace, rows=3)]

        return self.run(collect())

    def clear(self, *names: str) -> None:
        for name in names:
            self.run(self.admin.execute(f"DELETE FROM {table_name(name, EMBEDDING)}"))
        self.run(self.admin.execute("DELETE FROM hybridrag_ledger.carried"))


@pytest.fixture(scope="module")
def target(server: Server) -> Iterator[Target]:
    """LightRAG's schema, once; one open writer."""
    loop = asyncio.new_event_loop()
    name = f"trip{os.getpid()}"
    root = loop.run_until_complete(asyncpg.connect(server.dsn("tester")))
    loop.run_until_complete(root.execute(f"CREATE DATABASE {name}"))
    spec = PostgresSpec.model_validate(
        {"type": "postgres", "host": server.host, "port": server.port, "user": server.user, "database": name,
         "password": {"env": "PW"}}
    )  # fmt: skip
    secrets = Secrets({"PW": server.password}, Path())
    backend = PostgresBackend(
        "pg", spec, environment="test", state=Path(), secrets=secrets, schema=LightRagSchema()
    )
    store = backend.store("unused", WORKSPACE, EMBEDDING)
    session = store.open_writer("migration", "fingerprint")
    writer = loop.run_until_complete(session.__aenter__())
    loop.run_until_complete(writer.prepare())
    admin = loop.run_until_complete(asyncpg.connect(server.dsn(name)))
    loop.run_until_complete(admin.execute("SET synchronous_commit = off"))
    yield Target(loop, store, writer, admin)
    with contextlib.suppress(Exception):
        loop.run_until_complete(session.__aexit__(None, None, None))
    loop.run_until_complete(admin.close())
    loop.run_until_complete(root.execute(f"DROP DATABASE {name} WITH (FORCE)"))
    loop.run_until_complete(root.close())
    loop.close()


def _kept(batch: Batch, form: Batch) -> Batch:
    """The source records that `examine` let pass."""
    index = [i for i, key in enumerate(batch.keys) if key in set(form.keys)]
    return Batch(
        namespace=batch.namespace,
        position=len(index),
        keys=[batch.keys[i] for i in index],
        fields=[batch.fields[i] for i in index],
        vectors=None if batch.vectors is None else np.ascontiguousarray(batch.vectors[index]),
    )


def _same_after_a_round_trip(target: Target, batch: Batch) -> Examination:
    """Write what is not refused as the migration does (in its source form), read it back, compare everything."""
    examination = Examination()
    form = target.store.examine(batch, examination)
    assert len(form) + examination.refused_total == len(batch)
    refused = [printable(key) for key in batch.keys if key not in set(form.keys)]
    assert refused == [key for _, key, _ in examination.refused]
    assert all(reason and reason.isprintable() for _, _, reason in examination.refused)
    target.clear(*(("edges", "nodes") if BY_NAME[batch.namespace].slot is Slot.GRAPH else (batch.namespace,)))
    if batch.namespace == "edges":  # Postgres wants both ends of an edge
        ends = sorted({end for key in form.keys for end in key.split(EDGE_SEPARATOR)})
        target.write(Batch(namespace="nodes", position=0, keys=ends, fields=[{} for _ in ends]))
    if len(form):
        target.write(_kept(batch, form))
    found = target.read(batch.namespace)
    wanted = {key: canonical_bytes(fields) for key, fields in zip(form.keys, form.fields, strict=True)}
    present = [
        item for part in found for item in zip(part.keys, map(canonical_bytes, part.fields), strict=True)
    ]
    assert dict(present) == wanted
    assert len(present) == len(form)
    assert digest_stream(found).value == digest_stream([form]).value, "the vectors differ"
    return examination


@pytest.mark.parametrize("namespace", NAMES)
@FAST
@given(data=st.data())
def test_a_valid_record_comes_back_as_examined_and_is_never_refused(
    namespace: str, target: Target, data: st.DataObject
) -> None:
    """Anything Postgres can hold is accepted, whatever it looks like; fields without a column come back as well."""
    batch = data.draw(batches(namespace, good=True))
    examination = _same_after_a_round_trip(target, batch)
    assert examination.refused == []
    known = {column.field for column in TABLES[namespace].columns}
    carried = [
        [name for name in fields if name not in known]
        for fields in batch.fields
        if not TABLES[namespace].graph
    ]
    assert examination.lost == {}
    assert sum(examination.carried.values()) == sum(map(len, carried))
    assert sum(examination.carried_by.values()) == sum(map(bool, carried))


@pytest.mark.parametrize("namespace", NAMES)
@FAST
@given(data=st.data())
def test_a_hostile_record_is_refused_with_a_reason_or_comes_back_as_examined(
    namespace: str, target: Target, data: st.DataObject
) -> None:
    """NUL, lone surrogates, NaN, wrong types, too long, too deep: named before anything is written, or harmless."""
    _same_after_a_round_trip(target, data.draw(batches(namespace, good=False)))


@st.composite
def _with_doubles(draw: st.DrawFn, namespace: str) -> Batch:
    """Any records, some keys of them again with other fields, some of them no records at all."""
    batch = draw(batches(namespace, good=draw(st.booleans())))
    again = draw(st.lists(st.sampled_from(range(len(batch))), max_size=3))
    order = draw(st.permutations([*range(len(batch)), *again]))
    found = batch.only(order) if again else batch
    found.fields = [dict(fields) for fields in found.fields]
    found.position = len(found)
    for index in draw(st.sets(st.sampled_from(range(len(found))), max_size=1)):
        found.faults[index] = Fault(reason="it is no record", record=draw(any_json))
    return found


@pytest.mark.parametrize(
    "namespace",
    [pytest.param(name, marks=[pytest.mark.slow] if number % 2 else []) for number, name in enumerate(NAMES)],
)
@FAST
@given(data=st.data())
def test_every_record_is_in_the_target_or_in_the_quarantine_with_its_reason(
    namespace: str, target: Target, data: st.DataObject
) -> None:
    """Hostile records, ids that stand twice, edges to nowhere: nothing is lost, nothing is in both, the rest is equal."""
    streams = {namespace: data.draw(_with_doubles(namespace))}
    if namespace == "edges":
        ends = {end for key in streams["edges"].keys for end in key.split(EDGE_SEPARATOR)}
        nodes = data.draw(st.lists(st.sampled_from(sorted(ends)), unique=True))
        fields = [data.draw(st.sampled_from([{}, {"rank": float("nan")}])) for _ in nodes]
        streams = {
            "nodes": Batch(namespace="nodes", position=len(nodes), keys=nodes, fields=fields),
            **streams,
        }
    source, rows = Some(streams), data.draw(st.integers(1, 4))
    meter = Meter(lambda event: None, "test", "test", 0)
    bad: list[BadRecord] = []
    expected, found = target.run(examine_source(source, target.store, streams, rows, meter, bad.append))
    left_out = LeftOut.from_bytes(LeftOut(found.left_out).to_bytes())
    assert left_out.total == len(bad) == found.refused_total
    rest = left_out.of(source)
    target.clear(*(("edges", "nodes") if BY_NAME[namespace].slot is Slot.GRAPH else (namespace,)))
    target.run(copy(rest, target.writer, streams, {}, rows, meter))
    report = target.run(compare(rest, target.store, target.store.reader(), expected, rows, meter))
    assert report.equal, report
    assert report.records + len(bad) == sum(map(len, streams.values()))
    for record in bad:
        assert record.reason.isprintable()
        whole, index = streams[record.namespace], record.position - 1
        assert record.key == whole.keys[index]
        told = _read_again(line(record))
        kept = whole.faults[index].record if index in whole.faults else whole.fields[index]
        if told is not None:
            assert (told["stream"], told["key"], told["reason"]) == (
                record.namespace,
                record.key,
                record.reason,
            )
            assert repr(told["record"]) == repr(kept)
            if whole.vectors is not None:
                assert np.array_equal(np.float32(told["vector"]), whole.vectors[index], equal_nan=True)
    assert len({(record.namespace, record.position) for record in bad}) == len(bad)


def _read_again(text: bytes) -> Any:
    """A line of the quarantine as Python reads it; None where it is nested too deep for that."""
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    try:
        return json.loads(text)
    except RecursionError:
        return None


@pytest.mark.parametrize("namespace", NAMES)
def test_a_long_incompressible_text_is_refused_or_comes_back(namespace: str, target: Target) -> None:
    """Columns with a B-tree index take less than their type says."""
    key = edge_key("a", "b") if namespace == "edges" else "key"
    names = [column.field for column in TABLES[namespace].columns if column.kind is Kind.TEXT] or [
        "description"
    ]
    keys = [key if index == 0 else key + str(index) for index, _ in enumerate(names)]
    batch = Batch(
        namespace=namespace, position=len(keys), keys=keys, fields=[{name: NOISE} for name in names]
    )
    if BY_NAME[namespace].slot is Slot.VECTOR:
        batch.vectors = np.zeros((len(keys), EMBEDDING.dim), dtype=np.float32)
    _same_after_a_round_trip(target, batch)


def test_a_chunk_vector_takes_tokens_and_order_from_its_chunk(target: Target) -> None:
    """vdb_chunks.json lacks two columns of its table; they come from the chunks, and a difference is a broken rule."""
    target.clear("text_chunks", "chunks")
    vectors = np.ones((2, EMBEDDING.dim), dtype=np.float32)
    chunk = {"content": "c", "tokens": 41, "chunk_order_index": 7}
    target.write(Batch(namespace="text_chunks", position=1, keys=["c1"], fields=[chunk]))
    target.write(
        Batch(namespace="chunks", position=2, keys=["c1", "orphan"], fields=[{}, {}], vectors=vectors)
    )
    table = table_name("chunks", EMBEDDING)
    rows = target.run(target.admin.fetch(f"SELECT id, tokens, chunk_order_index FROM {table} ORDER BY id"))
    assert [tuple(row) for row in rows] == [("c1", 41, 7), ("orphan", None, None)]
    assert target.run(target.store.related()) == []
    target.run(target.admin.execute(f"UPDATE {table} SET tokens = 42 WHERE id = 'c1'"))
    assert target.run(target.store.related()) == [
        "1 chunk vectors disagree with their chunk in tokens or order"
    ]
