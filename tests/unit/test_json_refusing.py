"""The JSON readers never take a part of a damaged file for the whole, nor a damaged record for a good one."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.json.surrogates import SurrogateWatch
from hybridrag.errors import SourceUnreadable
from hybridrag.model.selection import Embedding
from tests.support.json_files import IN_A_FOLDER, graph_file, read, vector_file


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
    # Of nothing at all LightRAG says that it is a missing file, where it holds keys and values.
    for length in range(1 if kind == "kv" else 0, len(whole.rstrip())):
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
