"""The JSON readers see what LightRAG itself would load, in any batches, and never a part of a damaged file."""

from __future__ import annotations

import asyncio
import base64
import functools
import itertools
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nano_vectordb.dbs import load_storage, normalize

from hybridrag.backends.json.counting import count_records
from hybridrag.backends.json.files import FILES, GRAPH_FILE, file_of
from hybridrag.backends.json.graphml import edge_key
from hybridrag.backends.json.store import JsonReader, JsonStore
from hybridrag.backends.json.surrogates import SurrogateWatch
from hybridrag.errors import SourceUnreadable
from hybridrag.model.data import BY_NAME, NAMESPACES, Batch, Slot
from hybridrag.model.selection import Embedding
from tests.conftest import EXAMPLE, OLD_DATABASE

DATABASES = {"1.5.7": EXAMPLE / "archive", "1.4.9.8": OLD_DATABASE}
NAMES = [namespace.name for namespace in NAMESPACES]
IN_A_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Records = list[tuple[str, dict[str, Any], list[float] | None]]


def read(folder: Path, namespace: str, *, skip: int = 0, rows: int = 1000) -> list[Batch]:
    """Every batch of one stream, through the public reader."""

    async def collect() -> list[Batch]:
        return [batch async for batch in JsonReader(folder).read(namespace, skip=skip, rows=rows)]

    return asyncio.run(collect())


def records(batches: Iterable[Batch]) -> Records:
    return [
        (key, batch.fields[i], None if batch.vectors is None else batch.vectors[i].tolist())
        for batch in batches
        for i, key in enumerate(batch.keys)
    ]


# --- the same records as LightRAG's own loading ---------------------------------------------------------


def _kv(path: Path) -> dict[str, dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:  # lightrag/utils.py, load_json
        loaded = json.load(file)
    return {key: {k: v for k, v in record.items() if k != "_id"} for key, record in loaded.items()}


def _vectors(path: Path) -> dict[str, dict[str, Any]]:
    storage = load_storage(str(path))
    assert storage is not None
    found = {}
    for row, direction in zip(storage["data"], storage["matrix"], strict=True):
        half = np.frombuffer(zlib.decompress(base64.b64decode(row["vector"])), dtype=np.float16)
        renamed = {"created_at" if name == "__created_at__" else name: value for name, value in row.items()}
        fields = {k: v for k, v in renamed.items() if not k.startswith("__") and k != "vector"}
        found[row["__id__"]] = {"fields": fields, "half": half.astype(np.float64), "direction": direction}
    return found


def _graph(path: Path, namespace: str) -> dict[str, dict[str, Any]]:
    graph = nx.read_graphml(path)
    if namespace == "nodes":
        return dict(graph.nodes(data=True))
    return {edge_key(one, other): fields for one, other, fields in graph.edges(data=True)}


@pytest.mark.parametrize("version", DATABASES)
@pytest.mark.parametrize("namespace", NAMES)
def test_a_stream_holds_exactly_what_lightrag_would_load(version: str, namespace: str) -> None:
    """Keys, order, fields and vectors equal those of json, nano_vectordb and networkx, and so do the counts."""
    folder = DATABASES[version]
    path = folder / file_of(namespace)
    found = records(read(folder, namespace, rows=7))
    assert len(found) == count_records(path)[namespace] > 0
    slot = BY_NAME[namespace].slot
    if slot is not Slot.VECTOR:
        wanted = _graph(path, namespace) if slot is Slot.GRAPH else _kv(path)
        assert [(key, fields) for key, fields, _ in found] == list(wanted.items())
        return
    loaded = _vectors(path)
    assert [(key, fields) for key, fields, _ in found] == [
        (key, row["fields"]) for key, row in loaded.items()
    ]
    for key, _, vector in found:
        restored = np.array(vector, dtype=np.float64)
        half, direction = loaded[key]["half"], loaded[key]["direction"].astype(np.float64)
        norm = np.linalg.norm(half)
        assert norm > 1.5, "the example's vectors are not normalised, so that a lost norm shows"
        assert np.linalg.norm(restored) == pytest.approx(norm, rel=1e-6)
        assert 1 - restored @ half / (np.linalg.norm(restored) * norm) < 1e-6
        assert np.allclose(restored / norm, direction, atol=1e-7)


@functools.cache
def _whole(version: str, namespace: str) -> Records:
    return records(read(DATABASES[version], namespace))


@given(
    namespace=st.sampled_from(NAMES),
    version=st.sampled_from(sorted(DATABASES)),
    skip=st.integers(0, 40) | st.integers(0, 400),
    rows=st.integers(1, 50) | st.just(1000),
)
@settings(max_examples=150, deadline=None)
def test_a_stream_resumed_anywhere_in_batches_of_any_size_is_the_same(
    namespace: str, version: str, skip: int, rows: int
) -> None:
    """`skip` is a checkpoint: what was committed before plus what is read now is the whole, each record once."""
    batches = read(DATABASES[version], namespace, skip=skip, rows=rows)
    whole = _whole(version, namespace)
    assert records(batches) == whole[skip:]
    assert all(0 < len(batch) <= rows for batch in batches)
    done = min(skip, len(whole))
    for batch in batches:
        done += len(batch)
        assert batch.position == done


# --- counts ---------------------------------------------------------------------------------------------

_tricky = st.sampled_from(
    ['"__id__":', '"__id__": "x"', "<node id=", "</node>", '\n  "', '{\n  "a": 1', '"matrix": "', '\\"', "\\", "\n", "]}", "é\u2028"]
)  # fmt: skip
_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=6) | _tricky
_value = st.recursive(
    _text | st.integers(-9, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_layouts = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 1, 2, 4, "\t"]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([None, (",", ":"), (" ,\n ", " :  ")]),
    }
)


@given(
    content=st.dictionaries(_text, st.dictionaries(_text, _value, max_size=3), max_size=5),
    layout=_layouts,
    frame=st.sampled_from([("", ""), ("\ufeff", ""), ("\ufeff\n ", "\n"), (" ", "\r\n")]),
)
@example(content={"a": {}, "b": {}}, layout={}, frame=("\ufeff", ""))
@IN_A_FOLDER
def test_a_kv_file_is_counted_and_read_however_it_is_laid_out(
    tmp_path: Path, content: dict[str, Any], layout: dict[str, Any], frame: tuple[str, str]
) -> None:
    """Indentation, a byte order mark, escapes and look-alikes of structure change neither count nor records."""
    path = tmp_path / "kv_store_text_chunks.json"
    path.write_bytes((frame[0] + json.dumps(content, **layout) + frame[1]).encode())
    assert count_records(path) == {"text_chunks": len(content)}
    found = {key: fields for key, fields, _ in records(read(tmp_path, "text_chunks", rows=2))}
    assert found == {key: {k: v for k, v in record.items() if k != "_id"} for key, record in content.items()}


def vector_file(
    path: Path,
    rows: list[dict[str, Any]],
    vectors: Any,
    *,
    after: dict[str, Any] | None = None,
    **layout: Any,
) -> Path:
    """A `vdb_*.json` as NanoVectorDB saves it: matrix normalised, `vector` in float16; `after` follows the matrix."""
    array = np.asarray(vectors, dtype=np.float32).reshape(len(rows), -1)
    with np.errstate(all="ignore"):
        matrix = normalize(array).astype(np.float32)
        half = array.astype(np.float16)
    data = [
        {"vector": base64.b64encode(zlib.compress(half[i].tobytes())).decode(), **row}
        for i, row in enumerate(rows)
    ]
    content = {
        "embedding_dim": array.shape[1],
        "data": data,
        "matrix": base64.b64encode(matrix.tobytes()).decode(),
        **(after or {}),
    }
    path.write_text(json.dumps(content, **{"ensure_ascii": False, **layout}), encoding="utf-8")
    return path


@given(
    texts=st.lists(_text, min_size=1, max_size=4),
    layout=_layouts,
    after=st.sampled_from([{}, {"additional_data": {"__id__": "x", "space": "hash-emb"}}]),
)
@IN_A_FOLDER
def test_a_vector_file_is_counted_and_read_however_it_is_laid_out(
    tmp_path: Path, texts: list[str], layout: dict[str, Any], after: dict[str, Any]
) -> None:
    """Look-alikes in texts, other spacing, and keys after the matrix (newer LightRAG) change nothing."""
    rows = [{"__id__": f"{i}{text}", "content": text} for i, text in enumerate(texts)]
    path = vector_file(tmp_path / "vdb_chunks.json", rows, np.eye(len(rows), 3) + 1, after=after, **layout)
    assert count_records(path) == {"chunks": len(rows)}
    found = [(key, fields) for key, fields, _ in records(read(tmp_path, "chunks", rows=3))]
    assert found == [(row["__id__"], {"content": row["content"]}) for row in rows]


def graph_file(folder: Path) -> Path:
    """A GraphML file as NetworkXStorage writes it, with all attribute types and look-alikes of structure."""
    graph = nx.Graph()
    graph.add_node(
        "<node id='x'>", entity_id="a", description="]]> <edge &", created_at=2**40, score=1.5, ok=True
    )
    graph.add_node("Zoë", entity_id="", description="line\nbreak\ttab", created_at=-1, score=1e-300, ok=False)
    graph.add_node('lonely & "quoted"')
    graph.add_edge("Zoë", "<node id='x'>", weight=2.0, keywords="<node ", created_at=3, truncate="")
    graph.add_edge("Zoë", "Zoë", weight=0.1)
    path = folder / GRAPH_FILE
    nx.write_graphml(graph, path)
    return path


def test_a_graph_with_every_attribute_type_is_read_as_networkx_reads_it(tmp_path: Path) -> None:
    """Integers, floats, booleans, empty texts, self-loops and look-alikes of tags."""
    path = graph_file(tmp_path)
    assert count_records(path) == {"nodes": 3, "edges": 2}
    for namespace in ("nodes", "edges"):
        found = {key: fields for key, fields, _ in records(read(tmp_path, namespace))}
        wanted = _graph(path, namespace)
        assert found == wanted
        assert {k: [type(v) for v in f.values()] for k, f in found.items()} == {
            k: [type(v) for v in f.values()] for k, f in wanted.items()
        }


@pytest.mark.parametrize(
    ("was", "becomes", "readable"),
    [
        (b">True<", b">true<", True),
        (b">True<", b">perhaps<", False),
        (b">1.5<", b">one<", False),
        (b'<data key="d2">-1</data>', b'<data key="d2" />', True),
        (b'<data key="d2">-1</data>', b'<data key="d99">-1</data>', False),
    ],
)
def test_an_odd_attribute_is_read_as_networkx_reads_it_or_refused(
    tmp_path: Path, was: bytes, becomes: bytes, readable: bool
) -> None:
    """Whatever networkx would stumble over is damage, not a guess."""
    path = graph_file(tmp_path)
    text = path.read_bytes()
    assert was in text
    path.write_bytes(text.replace(was, becomes))
    if not readable:
        with pytest.raises(Exception):  # noqa: B017, PT011 - networkx raises whatever it stumbles over
            _graph(path, "nodes")
        with pytest.raises(SourceUnreadable):
            read(tmp_path, "nodes")
        return
    assert {key: fields for key, fields, _ in records(read(tmp_path, "nodes"))} == _graph(path, "nodes")


# --- damage ---------------------------------------------------------------------------------------------


def small_kv(folder: Path) -> Path:
    path = folder / "kv_store_full_docs.json"
    content = {
        f"doc-{n}": {"content": f"Zoë {n} 😀 \\u {{}}\n", "n": n, "list": [1, {"a": None}], "_id": f"doc-{n}"}
        for n in range(3)
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def small_vectors(folder: Path) -> Path:
    rows = [{"__id__": f"é-{n}", "__created_at__": n, "content": 'say "matrix": "x"'} for n in range(3)]
    return vector_file(
        folder / "vdb_entities.json", rows, np.arange(12) + 1, after={"additional_data": {"a": "}"}}
    )


MAKERS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "kv": (small_kv, ("full_docs",)),
    "vectors": (small_vectors, ("entities",)),
    "graph": (graph_file, ("nodes", "edges")),
}


def _all(folder: Path, namespaces: tuple[str, ...]) -> None:
    for namespace in namespaces:
        read(folder, namespace, rows=2)


def _observe(folder: Path) -> dict[str, Any]:
    facts, _ = asyncio.run(JsonStore("files", folder, Embedding(model="m", dim=4)).observe())
    return dict(facts)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_cut_off_anywhere_is_never_read_as_whole(tmp_path: Path, kind: str) -> None:
    """At every byte: reading it ends in SourceUnreadable with the file's name, and observing it does not raise."""
    make, namespaces = MAKERS[kind]
    path = make(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole.rstrip())):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceUnreadable) as caught:
            _all(tmp_path, namespaces)
        assert path.name in caught.value.what, length
        if length % 16 == 0:
            assert f"damaged/{path.name}" in _observe(tmp_path), length
    path.write_bytes(whole)
    assert all(read(tmp_path, namespace) for namespace in namespaces)


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
@settings(parent=IN_A_FOLDER, max_examples=150)
def test_random_damage_is_unreadable_or_harmless_and_nothing_else(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    """Bytes replaced, removed or put in anywhere: SourceUnreadable or readable, never another exception."""
    make, namespaces = MAKERS[kind]
    path = make(tmp_path)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    gone = data.draw(st.integers(0, 8))
    new = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"null", b"0", b"[]", b'""', b"9" * 30, b"\\ud800"])
    )
    path.write_bytes(whole[:at] + new + whole[at + gone :])
    _observe(tmp_path)
    told = []
    try:
        _all(tmp_path, namespaces)
    except SourceUnreadable as error:
        told.append(error.what)
    assert all(path.name in text and "\n" not in text for text in told)


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ('"embedding_dim": 4', '"embedding_dim": 0', "embedding_dim"),
        ('"embedding_dim": 4', '"embedding_dim": 3', "rows"),
        ('"__id__": "é-1"', '"__id__": 7', "__id__"),
        ('"data": [{', '"data": [5, {', "not an object"),
        ('"}}', '"}', "premature EOF"),
    ],
)
def test_a_vector_file_that_contradicts_itself_says_how(
    tmp_path: Path, was: str, becomes: str, words: str
) -> None:
    """Each inconsistency has its own words, and the file's name."""
    path = small_vectors(tmp_path)
    text = path.read_text("utf-8")
    assert was in text
    path.write_text(text.replace(was, becomes, 1), encoding="utf-8")
    with pytest.raises(SourceUnreadable, match=words):
        read(tmp_path, "entities")


@pytest.mark.parametrize("spoiled", ['"vector": "AAAA', '"vector": [1], "v": "', '"vector": "eJwDAAAAAAE='])
def test_a_vector_that_cannot_be_decoded_is_a_fault_of_its_record_alone(tmp_path: Path, spoiled: str) -> None:
    """The others are read; this one has its reason and the row as it stands in the file."""
    path = small_vectors(tmp_path)
    path.write_text(path.read_text("utf-8").replace('"vector": "', spoiled, 1), encoding="utf-8")
    (batch,) = read(tmp_path, "entities")
    assert list(batch.faults) == [0]
    assert "cannot be decoded" in batch.faults[0].reason
    assert batch.faults[0].record["__id__"] == batch.keys[0]
    rest = batch.only(range(1, len(batch)))
    assert (rest.faults, len(rest)) == ({}, len(batch) - 1)
    assert batch.only([1, 0]).faults == {1: batch.faults[0]}
    assert (batch.drop_first(0).faults, batch.drop_first(1).faults) == (batch.faults, {})


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_what_only_python_reads_is_read_as_python_does(tmp_path: Path, rows: int) -> None:
    """The streaming parser stops at NaN, at great numbers and at half a character; LightRAG does not, so we go on."""
    numbers = ["NaN", "-Infinity", str(2**70), "1e999", '"\\ud800"', '"\\udfff x"', "1"]
    members = ", ".join(f'"k{at}": {{"n": {text}, "t": "é"}}' for at, text in enumerate([*numbers, *numbers]))
    path = tmp_path / "kv_store_full_docs.json"
    for before, after in (
        ("{", "}"),
        ("\ufeff {", "} "),
        ('{"ä": {}, ', ', "e": {"n": "' + "x" * 200_000 + '"}}'),
    ):
        path.write_text(before + members + after, encoding="utf-8")
        wanted = json.loads(path.read_text("utf-8-sig"))
        found = list(JsonReader(tmp_path)._stream("full_docs", 0, rows))
        pairs = [pair for batch in found for pair in zip(batch.keys, batch.fields, strict=True)]
        assert repr(pairs) == repr(list(wanted.items()))  # NaN is not equal to itself
        assert [batch.position for batch in found][-1] == len(wanted)
        later = [key for batch in JsonReader(tmp_path)._stream("full_docs", 5, rows) for key in batch.keys]
        assert later == list(wanted)[5:]


def test_a_row_that_only_python_reads_stands_beside_its_vector(tmp_path: Path) -> None:
    """The same in a vector file: every row keeps its place, and so its row of the matrix."""
    rows: list[dict[str, Any]] = [{"__id__": f"r{n}", "n": 1} for n in range(5)]
    rows[2]["n"], rows[4]["n"] = float("nan"), "half"
    vectors = [[n + 1, 1] for n in range(5)]
    path = vector_file(tmp_path / "vdb_chunks.json", rows, vectors)
    path.write_text(path.read_text("utf-8").replace('"half"', '"\\ud800"'), encoding="utf-8")
    found = records(read(tmp_path, "chunks"))
    assert [key for key, _, _ in found] == [f"r{n}" for n in range(5)]
    assert [repr(fields["n"]) for _, fields, _ in found] == ["1", "1", "nan", "1", "'\\ud800'"]
    assert [
        vector == pytest.approx(wanted, rel=1e-3)
        for (_, _, vector), wanted in zip(found, vectors, strict=True)
    ]


@pytest.mark.parametrize(
    "text", ['{"a": {"n": NaN}, "b": }', '{"a": {"n": NaN}', '{"a": {"n": NaN}} {}', '{"a": {"n": NaN}, 1: {}}',
             '{"a": {"n": NaN} "b": {}}', '{"a": {"n": "\\ud800"}, "b": {"\\ud8']
)  # fmt: skip
def test_what_python_does_not_read_either_is_damaged(tmp_path: Path, text: str) -> None:
    """NaN before it makes no difference."""
    (tmp_path / "kv_store_full_docs.json").write_text(text)
    with pytest.raises(
        SourceUnreadable, match=r"(?s)damaged after [01] good record.*LightRAG cannot open it either"
    ):
        read(tmp_path, "full_docs")


# --- vectors --------------------------------------------------------------------------------------------


@given(
    st.integers(1, 7).flatmap(
        lambda dim: st.lists(
            st.lists(
                st.floats(2**-9, 6e4, width=32) | st.floats(-6e4, -(2**-9), width=32),
                min_size=dim,
                max_size=dim,
            ),
            min_size=1,
            max_size=5,
        )
    )
)
@IN_A_FOLDER
def test_a_vector_gets_its_original_norm_and_its_exact_direction_back(
    tmp_path: Path, vectors: list[list[float]]
) -> None:
    """From the two copies: direction to float32 (1 - cos < 1e-6), norm to float16 (2^-11)."""
    rows = [{"__id__": str(n)} for n in range(len(vectors))]
    vector_file(tmp_path / "vdb_chunks.json", rows, vectors)
    for (_, _, found), original in zip(records(read(tmp_path, "chunks")), vectors, strict=True):
        one, other = np.array(found, dtype=np.float64), np.array(original, dtype=np.float64)
        assert 1 - one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) < 1e-6
        assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(other), rel=2**-11 * 1.01)


def test_a_zero_vector_an_overflow_and_a_missing_copy_are_restored_from_what_is_good(tmp_path: Path) -> None:
    """The matrix holds NaN for a zero vector; float16 holds infinity beyond 65,504; `vector` may be missing."""
    vectors = [[0, 0], [300000, 400000], [3, 4], [70000, 0]]
    rows: list[dict[str, Any]] = [
        {"__id__": "zero"},
        {"__id__": "huge"},
        {"__id__": "bare", "vector": None},
        {"__id__": "axis"},
    ]
    vector_file(tmp_path / "vdb_chunks.json", rows, vectors)
    found = {key: vector for key, _, vector in records(read(tmp_path, "chunks"))}
    assert found["zero"] == [0, 0]
    assert found["huge"] == pytest.approx([0.6, 0.8])
    assert found["bare"] == pytest.approx([0.6, 0.8])
    assert found["axis"] == [1, 0]


def test_two_copies_that_disagree_are_never_silently_merged(tmp_path: Path) -> None:
    """A row whose two vectors point elsewhere is named."""
    rows = [{"__id__": "good"}, {"__id__": "bad"}]
    path = vector_file(tmp_path / "vdb_chunks.json", rows, [[1, 2, 3], [4, 5, 6]])
    content = json.loads(path.read_text())
    half = np.array([4, 5, -6], dtype=np.float16)
    content["data"][1]["vector"] = base64.b64encode(zlib.compress(half.tobytes())).decode()
    path.write_text(json.dumps(content))
    (batch,) = read(tmp_path, "chunks")
    assert list(batch.faults) == [1]
    assert "two different vectors" in batch.faults[1].reason
    assert batch.faults[1].record == content["data"][1]


# --- lone surrogates ------------------------------------------------------------------------------------

_pieces = st.sampled_from(
    ["\\ud83d", "\\uDE00", "\\ud800", "\\udfff", "\\\\", "\\\\ud800", "\\n", "\\u0041", "x", "é", "\\\\" * 40]
)


@given(pieces=st.lists(_pieces, max_size=12), cuts=st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=400)
def test_lone_surrogates_are_found_wherever_the_blocks_are_cut(pieces: list[str], cuts: list[int]) -> None:
    """The watch agrees with Python's own parser, which keeps them."""
    text = ('"' + "".join(pieces) + '"').encode()
    lone = re.search("[\ud800-\udfff]", json.loads(text)) is not None
    watch = SurrogateWatch()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    blocks = [text[a:b] for a, b in itertools.pairwise(edges) if a < b]
    found = [at for block in [*blocks, b""] if (at := watch.add(block)) is not None]
    assert bool(found) == lone
    if found:
        assert text[found[0] : found[0] + 3].lower() == b"\\ud"


def test_files_that_do_not_exist_are_empty_streams(tmp_path: Path) -> None:
    """LightRAG writes some files only once there is something in them."""
    assert [read(tmp_path, name) for name in NAMES] == [[]] * len(NAMES)
    assert len(FILES) == 12


@pytest.mark.parametrize("place", [".", ".."], ids=["in the folder", "beside it"])
async def test_a_storage_anchor_of_a_newer_lightrag_is_seen(tmp_path: Path, place: str) -> None:
    """It stands in the working folder, which is the database's own or the one above it."""
    folder = tmp_path / "working" / "notes"
    shutil.copytree(EXAMPLE / "archive", folder)
    store = JsonStore("files", folder, Embedding(model=None, dim=96))
    assert "anchor" not in (await store.observe())[0]
    config = folder / place / "_lightrag_config"
    config.mkdir()
    (config / "storage_anchor.json").write_text("{}")
    assert str((await store.observe())[0]["anchor"]).endswith("storage_anchor.json")
