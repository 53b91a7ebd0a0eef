"""What is written as LightRAG's files is what LightRAG would have written, and is read back as `examine` said."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from nano_vectordb import NanoVectorDB

from hybridrag.backends.json.graphml import edge_key
from hybridrag.backends.json.halves import copies_of, restored
from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.json.vectors import read_vectors
from hybridrag.errors import NotFound
from hybridrag.migrate.copying import copy
from hybridrag.migrate.digest import canonical_bytes, digest_stream
from hybridrag.migrate.progress import Meter
from hybridrag.model.data import ALL_SLOTS, BY_NAME, EDGE_SEPARATOR, NAMESPACES, Batch, Slot, streams_of
from hybridrag.model.findings import Examination
from hybridrag.model.marks import MarkState
from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE, OLD_DATABASE

NAMES = [namespace.name for namespace in NAMESPACES]
SMALL = 5
FAST = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class Batches:
    """A reader of given batches."""

    def __init__(self, *batches: Batch) -> None:
        self._batches = batches

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        for batch in self._batches:
            if batch.namespace == namespace:
                yield batch

    async def fingerprint(self) -> str:
        return "fingerprint"

    async def unfinished(self) -> list[str]:
        return []


def meter() -> Meter:
    return Meter(lambda event: None, "migrate.test", "copying", 1)


async def migrate(reader: Any, store: JsonStore, *, rows: int = 1000, identity: str = "owner-1") -> None:
    async with store.open_writer(identity, "fingerprint") as writer:
        await copy(reader, writer, streams_of(store.slots), await writer.prepare(), rows, meter())
        await writer.finish(lambda phase: None)


async def publish(store: JsonStore, identity: str = "owner-1") -> None:
    for state in (MarkState.VERIFIED, MarkState.SWITCHED):
        await store.mark(identity, state)


def moved(source: Path, target: Path, *, rows: int, dim: int = DIM) -> JsonStore:
    """The database of one folder, read and written into another."""

    async def run() -> JsonStore:
        store = JsonStore("files", target, Embedding(model="m", dim=dim))
        await migrate(JsonStore("files", source, Embedding(model="m", dim=dim)).reader(), store, rows=rows)
        await publish(store)
        return store

    return asyncio.run(run())


async def collect(reader: Any, namespace: str, rows: int = 3) -> list[Batch]:
    return [batch async for batch in reader.read(namespace, rows=rows)]


# --- the same bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [EXAMPLE / "archive", OLD_DATABASE], ids=["1.5.7", "1.4.9.8"])
def test_a_database_of_lightrags_is_written_again_byte_for_byte(source: Path, tmp_path: Path) -> None:
    """All but the vectors: a stream carries one of their two copies, and not `__write_seq__`."""
    moved(source, tmp_path / "first", rows=7)
    for path in sorted(source.iterdir()):
        own = (tmp_path / "first" / path.name).read_bytes()
        if path.suffix == ".graphml":  # the old one was written without lxml, which indents otherwise
            as_now = io.BytesIO()
            nx.write_graphml(nx.read_graphml(path), as_now)
            assert own == as_now.getvalue()
            assert own == path.read_bytes() or source == OLD_DATABASE
            continue
        if not path.name.startswith("vdb_"):
            assert own == path.read_bytes(), path.name
            continue
        theirs = re.sub(rb'"__write_seq__": \d+, ', b"", path.read_bytes())
        hidden = rb'"(?:vector|matrix)": "[^"]*"'
        assert re.sub(hidden, b"", own) == re.sub(hidden, b"", theirs), path.name
        assert len(own) == pytest.approx(len(theirs), rel=0.01)


def test_what_was_written_once_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    """Vectors included, and however the records came in batches."""
    moved(EXAMPLE / "archive", tmp_path / "first", rows=1000)
    moved(tmp_path / "first", tmp_path / "second", rows=3)
    for path in (tmp_path / "first").glob("*.*"):
        assert path.is_dir() or path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_an_empty_database_is_one_that_lightrag_opens(tmp_path: Path) -> None:
    """Every file is there and holds nothing."""

    async def run() -> None:
        store = JsonStore("files", tmp_path / "new" / "deep", Embedding(model="m", dim=SMALL))
        await migrate(Batches(), store)
        await publish(store)
        facts, _ = await store.observe()
        assert facts["exists"]
        assert {facts[f"records/{name}"] for name in NAMES} == {0}
        assert not [key for key in facts if key.startswith("damaged/")]

    asyncio.run(run())
    folder = tmp_path / "new" / "deep"
    assert json.loads((folder / "kv_store_doc_status.json").read_bytes()) == {}
    assert len(NanoVectorDB(SMALL, storage_file=str(folder / "vdb_chunks.json"))) == 0
    assert len(nx.read_graphml(folder / "graph_chunk_entity_relation.graphml")) == 0


# --- vectors ------------------------------------------------------------------------------------------

_component = st.floats(width=32, allow_nan=False, allow_infinity=False)
_near = st.builds(  # beside the limits at which float16 rounds
    lambda half, steps: float(
        np.float32(np.float16(half)) * np.float32(1 + 2**-11) * np.float32(1 + steps * 2.0**-23)
    ),
    st.floats(width=16, allow_nan=False, allow_infinity=False).filter(lambda value: abs(value) < 30000),
    st.integers(-3, 3),
)
_vectors = st.one_of(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=_component),
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(-1, 1, width=32)),
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=_near),
)  # fmt: skip


@settings(FAST, max_examples=100)
@given(vectors=_vectors)
def test_a_vector_is_read_as_examined_and_then_never_changes_again(
    vectors: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Zero, huge, tiny, beside every limit: bit for bit, and the nearest the two copies can tell."""
    form = restored(vectors)
    assert restored(form).tobytes() == form.tobytes()
    with np.errstate(over="ignore"):
        one = np.abs(np.spacing(vectors))
    # A product of small numbers has wider steps than they have.
    assert (np.abs(form - vectors) <= 3 * one + 1e-38).all()
    dim = vectors.shape[1]
    rows = [{"entity_name": str(index)} for index in range(len(vectors))]
    batch = Batch(
        namespace="entities", position=len(rows), keys=[r["entity_name"] for r in rows], fields=rows, vectors=vectors
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vectors")

    async def run() -> None:
        store = JsonStore("files", folder, Embedding(model="m", dim=dim), frozenset({Slot.VECTOR}))
        await migrate(Batches(batch), store)
        await publish(store)

    asyncio.run(run())
    [found] = read_vectors(folder / "vdb_entities.json", "entities", skip=0, rows=100)
    assert found.vectors is not None
    assert found.vectors.tobytes() == form.tobytes()


def test_real_vectors_keep_their_value_to_the_last_unit_and_their_halves(tmp_path: Path) -> None:
    """A thousand embeddings of 384 dimensions: one unit in the last place at most, and stable from then on."""
    vectors = np.random.default_rng(7).normal(0, 0.4, (1000, 384)).astype(np.float32)
    form = restored(vectors)
    assert (np.abs(form - vectors) <= np.spacing(np.abs(vectors))).all()
    for first, again in zip(copies_of(vectors), copies_of(form), strict=True):
        assert first.halved.all()
        assert again.restored.tobytes() == first.restored.tobytes()
        assert again.rows.tobytes() == first.rows.tobytes()
        assert again.halves.tobytes() == first.halves.tobytes()
    assert b"".join(c.halves.tobytes() for c in copies_of(form)) == vectors.astype(np.float16).tobytes()


def test_lightrags_vector_store_ranks_what_was_written_as_its_own(tmp_path: Path) -> None:
    """NanoVectorDB opens the files and finds the same neighbours with the same scores."""
    moved(EXAMPLE / "archive", tmp_path / "copy", rows=7)
    sides = [
        NanoVectorDB(DIM, storage_file=str(folder / "vdb_relationships.json"))
        for folder in (EXAMPLE / "archive", tmp_path / "copy")
    ]
    for question in np.random.default_rng(1).normal(size=(20, DIM)).astype(np.float32):
        mine, theirs = (
            [(hit["__id__"], hit["__metrics__"]) for hit in side.query(question)] for side in sides
        )
        assert [score for _, score in mine] == pytest.approx([score for _, score in theirs], abs=1e-6)


# --- records ------------------------------------------------------------------------------------------

_text = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=10),
    st.sampled_from(
        ["", "\0", "\\u0000", '"\\', "\r\n\t", "\x7f\x85\u2028\ufeff\ufffe", "😀", "<&>]]>", "  "]
    ),
)
_bad_text = st.sampled_from(["\ud800", "x\udfff"])
_numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([1e16, -0.0, 5e-324, 10**22, 10**400, 2**63, -(2**63), 1.0]),
)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _text | _bad_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text | _bad_text, inner, max_size=3),
    max_leaves=8,
)
_names = (
    _text
    | _bad_text
    | st.sampled_from(["_id", "content", "vector", "__id__", "created_at", "weight", "metadata"])
)


@st.composite
def batches(draw: st.DrawFn, namespace: str) -> Batch:
    """Up to five records with different keys, and anything in them."""
    one = _text | _bad_text
    if namespace == "edges":
        ends = one.filter(lambda text: EDGE_SEPARATOR not in text)
        key = st.builds(edge_key, ends, ends)
    else:
        key = one
    keys = draw(st.lists(key, min_size=1, max_size=5, unique=True))
    fields = [draw(st.dictionaries(_names, _json, max_size=4)) for _ in keys]
    batch = Batch(namespace=namespace, position=len(keys), keys=keys, fields=fields)
    if BY_NAME[namespace].slot is Slot.VECTOR:
        shape = (len(keys), SMALL)
        batch.vectors = draw(arrays.arrays(np.float32, shape, elements=st.floats(width=32)))
    return batch


@pytest.mark.parametrize("namespace", NAMES)
@settings(FAST, max_examples=20)
@given(data=st.data())
def test_a_record_is_refused_with_a_reason_or_read_back_as_examined(
    namespace: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """To the bit, whatever it holds; and examining it again changes nothing."""
    batch = data.draw(batches(namespace))
    slots = frozenset({BY_NAME[namespace].slot})
    store = JsonStore("files", tmp_path_factory.mktemp("any"), Embedding(model="m", dim=SMALL), slots)
    examination = Examination()
    form = store.examine(batch, examination)
    assert len(form) + examination.refused_total == len(batch)
    again = store.examine(form, Examination())
    assert digest_stream([again]).value == digest_stream([form]).value
    assert [list(fields) for fields in again.fields] == [list(fields) for fields in form.fields]
    if not len(form):
        return
    form.position = len(form)

    async def run() -> list[Batch]:
        await migrate(Batches(form), store)
        return await collect(store.written("owner-1"), namespace)

    found = asyncio.run(run())
    assert [key for part in found for key in part.keys] == form.keys
    assert [canonical_bytes(f) for part in found for f in part.fields] == [
        canonical_bytes(f) for f in form.fields
    ]
    assert digest_stream(found).value == digest_stream([form]).value


@settings(FAST, max_examples=40)
@given(records=st.dictionaries(_text, st.dictionaries(_text, _json, max_size=4), max_size=4))
def test_a_kv_file_is_what_lightrags_json_writes(
    records: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Indentation, escapes and the spelling of numbers."""
    store = JsonStore(
        "files", tmp_path_factory.mktemp("kv"), Embedding(model="m", dim=1), frozenset({Slot.DOC_STATUS})
    )
    batch = Batch(namespace="doc_status", position=0, keys=list(records), fields=list(records.values()))
    form = store.examine(batch, Examination())
    form.position = len(form)
    asyncio.run(migrate(Batches(form), store))
    [file] = store._folder.glob(".hybridrag/owner-1/kv_store_*.json")
    expected = json.dumps(dict(zip(form.keys, form.fields, strict=True)), indent=2, ensure_ascii=False)
    assert file.read_bytes() == expected.encode()


_label = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=6) | st.sampled_from(
    ["a\r\nb", "\t", "<&>'\""]
)
_scalar = (
    _label | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(FAST, max_examples=40)
@given(data=st.data())
def test_a_graph_file_is_what_networkx_writes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The numbering of attributes, their types, the direction and the order of edges."""
    valid = _label.filter(lambda text: not re.search("[\ufffe\uffff]", text))
    values = _scalar.filter(lambda value: not (isinstance(value, str) and re.search("[\ufffe\uffff]", value)))
    graph = nx.Graph()
    names = data.draw(st.lists(valid, min_size=1, max_size=6, unique=True))
    for name in names:
        graph.add_node(name, **data.draw(st.dictionaries(st.sampled_from("abc"), values, max_size=3)))
    for _ in range(data.draw(st.integers(0, 6))):
        fields = data.draw(st.dictionaries(st.sampled_from("xyz"), values, max_size=3))
        graph.add_edge(data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names)), **fields)
    expected = io.BytesIO()
    nx.write_graphml(graph, expected)
    nodes = Batch(
        namespace="nodes", position=len(names), keys=names, fields=[graph.nodes[name] for name in names]
    )
    links = list(graph.edges(data=True))
    keys = [edge_key(one, other) for one, other, _ in links]
    edges = Batch(namespace="edges", position=len(keys), keys=keys, fields=[fields for *_, fields in links])
    store = JsonStore(
        "files", tmp_path_factory.mktemp("graph"), Embedding(model="m", dim=1), frozenset({Slot.GRAPH})
    )
    asyncio.run(migrate(Batches(nodes, *([edges] if keys else [])), store))
    [file] = store._folder.glob(".hybridrag/owner-1/*.graphml")
    assert file.read_bytes() == expected.getvalue()


def test_vectors_of_another_size_are_refused(tmp_path: Path) -> None:
    """LightRAG would not open a file whose dimensions are not its model's."""
    store = JsonStore("files", tmp_path, Embedding(model="m", dim=4))
    batch = Batch(
        namespace="chunks", position=1, keys=["k"], fields=[{}], vectors=np.ones((1, 3), np.float32)
    )
    examination = Examination()
    assert len(store.examine(batch, examination)) == 0
    assert examination.refused == [("chunks", "k", "its vector has 3 dimensions, the database 4")]


def test_only_a_finished_copy_can_be_read(tmp_path: Path) -> None:
    """Half a copy is never compared."""
    store = JsonStore("files", tmp_path, Embedding(model="m", dim=4), ALL_SLOTS)

    async def run() -> None:
        async with store.open_writer("owner-1", "f") as writer:
            await writer.prepare()
        with pytest.raises(NotFound, match="no finished copy"):
            store.written("owner-1")

    asyncio.run(run())


def test_after_a_restart_of_the_machine_only_what_was_flushed_counts(tmp_path: Path) -> None:
    """A commit that the machine may have lost is done again; one of the same run of the machine is kept."""
    store = JsonStore("files", tmp_path, Embedding(model="m", dim=4), frozenset({Slot.KV}))
    batches = [
        Batch(namespace="full_docs", position=n, keys=[f"k{n}"], fields=[{"content": "x", "file_path": "f"}])
        for n in (1, 2)
    ]

    async def resumed() -> dict[str, int]:
        async with store.open_writer("owner-1", "fingerprint") as writer:
            done = await writer.prepare()
            for batch in batches[done.get("full_docs", 0) :]:
                await writer.write(writer.encode(batch))
            return done

    assert asyncio.run(resumed()) == {}
    assert asyncio.run(resumed()) == {"full_docs": 2}
    progress = tmp_path / ".hybridrag" / "owner-1" / "progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_text()), "boot": "another"}), encoding="utf-8")
    assert asyncio.run(resumed()) == {}
    asyncio.run(migrate(Batches(), store))
    found = asyncio.run(collect(store.written("owner-1"), "full_docs"))
    assert [key for batch in found for key in batch.keys] == ["k1", "k2"]
