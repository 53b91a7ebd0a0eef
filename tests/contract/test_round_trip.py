"""Whatever a record holds: Postgres gives back exactly what `examine` said, or `examine` refused it with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
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
from hybridrag.backends.postgres.tables import BTREE_TEXT_BYTES, SEPARATOR, TABLES, Column, Kind, table_name
from hybridrag.journal.quarantine import line
from hybridrag.migrate.copying import copy
from hybridrag.migrate.digest import canonical_bytes, digest_stream
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import compare
from hybridrag.model.data import BY_NAME, EDGE_SEPARATOR, NAMESPACES, BadRecord, Batch, Fault, Slot
from hybridrag.model.findings import Examination
from hybridrag.model.selection import Embedding
from tests.conftest import Server

T = TypeVar("T")
EMBEDDING = Embedding(model="hash-emb", dim=5)
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


# --- records ------------------------------------------------------------------------------------------

_random = random.Random(7)
_noise = "".join(chr(_random.randrange(0x4E00, 0x9FFF)) for _ in range(3000))
_valid = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
_tricky = st.sampled_from(
    ["", " ", "a ", "'", '"', "\\", "\\\\u0000", "\\u0000", "\\N", "\t\r\n", "\x01\x7f\x85\u2028", "{}", "null",
     "é", "e\u0301", "😀🏳️‍🌈", "\U0010ffff", "\ufeff", "\u202eabc", "%s $1 {0}", "NaN", SEPARATOR, f"a{SEPARATOR}{SEPARATOR}b"]
)  # fmt: skip
good_text = st.one_of(st.text(_valid, max_size=12), _tricky)
_bad_text = st.one_of(
    st.text(max_size=6).map(lambda text: text + "\0"),
    st.sampled_from(["\ud800", "x\udfff", "\0", "x" * 256, "😀" * 513, "x" * 1025, _noise, _noise[:900]]),
    st.text(st.characters(), max_size=8),
)
_good_numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e300, 5e-324, 1e16, 2**53 + 1, 2**64 - 1, 10**22, 0.1]),
)
_bad_numbers = st.sampled_from(
    [float("nan"), float("inf"), 2**64 + 1, -(2**63) - 1, 10**400, -(10**30) - 1, 2**31]
)


def _json(leaves: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=8,
    )


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


good_json = _json(st.none() | st.booleans() | _good_numbers | good_text, good_text)
any_json = st.one_of(
    good_json,
    _json(st.none() | _bad_numbers | _bad_text | _good_numbers, _bad_text | good_text),
    st.sampled_from([200, 300, 600, 3000]).map(_nested),
)
anything = any_json | _bad_text | _bad_numbers


def _good(column: Column) -> st.SearchStrategy[Any]:
    limit = column.limit or 10**9
    long = min(limit, BTREE_TEXT_BYTES)
    return {
        Kind.TEXT: good_text.filter(lambda text: len(text) <= limit)
        | st.sampled_from(["x" * long, "é" * (long // 2)]),
        Kind.INT: st.integers(-(2**31), 2**31 - 1) | st.sampled_from([3.0, -0.0]),
        Kind.EPOCH: st.integers(0, 2**36) | st.floats(0, 2**36),
        Kind.ISO: st.datetimes().map(lambda moment: moment.isoformat() + "+00:00")
        | st.sampled_from(["2024-02-29T23:59:59.999999Z", "2024-06-01T00:00:00", "2024-06-01T00:00:00.123456+05:30"]),
        Kind.JSON: good_json,
        Kind.JOINED: st.lists(st.text(_valid, max_size=9), max_size=4).map(SEPARATOR.join)
        | st.just(SEPARATOR.join(["c" * 255] * 300)),
    }[column.kind]  # fmt: skip


_unknown = st.sampled_from(["multimodal_content", "", "id", "workspace", "ключ"])


def _fields(namespace: str, *, good: bool) -> st.SearchStrategy[dict[str, Any]]:
    table = TABLES[namespace]
    if table.graph:
        scalars = st.booleans() | _good_numbers | good_text
        if good:
            return st.dictionaries(good_text | st.just("entity_id"), scalars, max_size=4)
        return st.dictionaries(
            good_text | _bad_text, scalars | _bad_numbers | _bad_text | st.none(), max_size=4
        )
    known = {
        column.field: st.none() | _good(column) if good else st.none() | _good(column) | anything
        for column in table.columns
    }
    return st.builds(
        lambda fields, more: {**more, **fields},
        st.fixed_dictionaries({}, optional=known),
        st.dictionaries(_unknown, good_json if good else anything, max_size=1),
    )


def _keys(namespace: str, *, good: bool) -> st.SearchStrategy[str]:
    limit = TABLES[namespace].key_limit or 600
    one = (good_text | st.sampled_from(["k" * limit, "é" * limit])).filter(
        lambda text: len(text) <= limit and EDGE_SEPARATOR not in text
    )
    if not good:
        one = (one | _bad_text).filter(lambda text: EDGE_SEPARATOR not in text)
    return st.builds(edge_key, one, one) if namespace == "edges" else one


@st.composite
def batches(draw: st.DrawFn, namespace: str, *, good: bool) -> Batch:
    """Up to six records with different keys."""
    keys = draw(st.lists(_keys(namespace, good=good), min_size=1, max_size=6, unique=True))
    fields = [draw(_fields(namespace, good=good)) for _ in keys]
    batch = Batch(namespace=namespace, position=len(keys), keys=keys, fields=fields)
    if BY_NAME[namespace].slot is Slot.VECTOR:
        component = st.floats(width=32, allow_nan=not good, allow_infinity=not good)
        rows = [[draw(component) for _ in range(EMBEDDING.dim)] for _ in keys]
        batch.vectors = np.array(rows, dtype=np.float32)
    return batch


# --- the truth ----------------------------------------------------------------------------------------


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
    """Anything Postgres can hold is accepted, whatever it looks like; unknown fields are counted as lost."""
    batch = data.draw(batches(namespace, good=True))
    examination = _same_after_a_round_trip(target, batch)
    assert examination.refused == []
    known = {column.field for column in TABLES[namespace].columns}
    lost = sum(
        value is not None and name not in known
        for fields in batch.fields
        for name, value in fields.items()
        if not TABLES[namespace].graph
    )
    assert sum(examination.lost.values()) == lost


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


@pytest.mark.parametrize("namespace", NAMES)
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
        namespace=namespace, position=len(keys), keys=keys, fields=[{name: _noise} for name in names]
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
