"""The JSON readers see what LightRAG itself would load, in any batches, however a file is laid out."""

from __future__ import annotations

import base64
import functools
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nano_vectordb.dbs import load_storage

from hybridrag.backends.json.counting import count_records
from hybridrag.backends.json.files import FILES, file_of
from hybridrag.backends.json.graphml import edge_key
from hybridrag.backends.json.store import JsonReader, JsonStore
from hybridrag.errors import SourceUnreadable
from hybridrag.model.data import BY_NAME, Slot
from hybridrag.model.selection import Embedding
from tests.conftest import EXAMPLE, OLD_DATABASE
from tests.support.json_files import IN_A_FOLDER, Records, graph_file, read, records, vector_file
from tests.support.streams import NAMES

DATABASES = {"1.5.7": EXAMPLE / "archive", "1.4.9.8": OLD_DATABASE}


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
