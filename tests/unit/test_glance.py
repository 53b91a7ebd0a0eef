"""A glance at JSON files is quick and right: exact where it says so, and never an estimate without saying so."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hybridrag.backends.json import counting, matrix
from hybridrag.backends.json.counting import count_records, glance_records
from hybridrag.backends.json.files import FILES, GRAPH_FILE, identity, namespaces_of
from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.json.vectors import read_vectors
from hybridrag.errors import SourceUnreadable
from hybridrag.model.data import NAMESPACES
from hybridrag.model.findings import Glance
from hybridrag.model.ports import KnownCounts
from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE, OLD_DATABASE, digests
from tests.support import big_database
from tests.support.streams import OWN

IN_A_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def glance(folder: Path, dim: int = DIM, counts: KnownCounts = lambda _: {}) -> Glance:
    store = JsonStore("files", folder, Embedding(model="m", dim=dim), counts=counts)
    return asyncio.run(store.glance())[0]


def observed(folder: Path, counts: KnownCounts = lambda _: {}) -> tuple[dict[str, Any], dict[str, Any]]:
    facts, details = asyncio.run(
        JsonStore("files", folder, Embedding(model="m", dim=DIM), counts=counts).observe()
    )
    return dict(facts), dict(details)


# --- the matrix ---

_base64 = st.text(st.sampled_from("ABCxyz019+/"), max_size=90)
_text = st.text(max_size=12) | _base64 | st.sampled_from(['"matrix": "', '\\"matrix\\": \\"AAAA', "}", '"'])


@given(
    rows=st.lists(st.tuples(_text, _base64), max_size=6),
    values=st.integers(0, 400),
    after=st.dictionaries(st.sampled_from(["additional_data", "more", "z"]), _text | st.dictionaries(_text, _text, max_size=2), max_size=2),
    separators=st.sampled_from([None, (",", ":"), (" , ", " :  ")]),
    ascii=st.booleans(),
    probe=st.integers(4, 200) | st.just(1000),
)  # fmt: skip
@settings(parent=IN_A_FOLDER, max_examples=600)
def test_bisecting_finds_the_matrix_where_searching_finds_it_or_says_that_it_cannot(
    tmp_path: Path, rows: Any, values: int, after: dict[str, Any], separators: Any, ascii: bool, probe: int
) -> None:
    """Also with looks so small that texts of the data are longer, with look-alikes in them and with keys after it.

    Only what follows the matrix must fit into one look.
    """
    path = tmp_path / "vdb_chunks.json"
    content = {
        "embedding_dim": 1,
        "data": [{"__id__": f"{i}", "content": text, "vector": code} for i, (text, code) in enumerate(rows)],
        "matrix": base64.b64encode(np.arange(values, dtype=np.float32).tobytes()).decode(),
        **after,
    }
    path.write_text(json.dumps(content, separators=separators, ensure_ascii=ascii), encoding="utf-8")
    whole = path.read_bytes()
    start, end = matrix.searched(path)
    assert whole[start:end].decode() == content["matrix"]
    assume(len(whole) - end <= probe)
    assert matrix.bisected(path, probe) in (None, (start, end))


@pytest.mark.parametrize("after", [{}, {"additional_data": {"space": "hash-emb"}}], ids=["last", "followed"])
@pytest.mark.parametrize("dim", [3, 64, 1000])
def test_a_big_file_of_ordinary_rows_is_bisected(tmp_path: Path, dim: int, after: dict[str, Any]) -> None:
    """No search: with a look longer than any vector of the data, the span and the rows come from a few looks."""
    path = tmp_path / "vdb_chunks.json"
    vectors = np.random.default_rng(1).normal(size=(200, dim)).astype(np.float32)
    data = [{"__id__": str(i), "content": "é " * i, "vector": base64.b64encode(row.astype("f2").tobytes()).decode()}
            for i, row in enumerate(vectors)]  # fmt: skip
    content = {
        "embedding_dim": dim,
        "data": data,
        "matrix": base64.b64encode(vectors.tobytes()).decode(),
        **after,
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert matrix.bisected(path, 4 * dim + 60) == matrix.searched(path)
    assert matrix.matrix_rows(path) == 200


def test_a_file_that_misleads_the_bisection_is_refused_by_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something long after the matrix, which LightRAG never writes: no record is read from a wrong place."""
    monkeypatch.setattr(matrix, "SEARCHED", 0)
    monkeypatch.setattr(matrix, "PROBE", 8)
    path = tmp_path / "vdb_chunks.json"
    content = {"embedding_dim": 400, "data": [{"__id__": "a"}],
               "matrix": base64.b64encode(np.ones(400, dtype=np.float32).tobytes()).decode(), "more": "AAAA" * 5}  # fmt: skip
    path.write_text(json.dumps(content))
    assert matrix.matrix_span(path) != matrix.searched(path)
    with pytest.raises(SourceUnreadable, match="not base64"):
        list(read_vectors(path, "chunks", skip=0, rows=10))


def test_a_matrix_that_is_no_whole_number_of_rows_is_not_counted_by_its_length(tmp_path: Path) -> None:
    """Its records are counted one by one; reading them refuses the file."""
    path = tmp_path / "vdb_chunks.json"
    content = {"embedding_dim": 2, "data": [{"__id__": "a"}, {"__id__": "b"}],
               "matrix": base64.b64encode(np.zeros(3, dtype=np.float32).tobytes()).decode()}  # fmt: skip
    path.write_text(json.dumps(content))
    assert matrix.matrix_rows(path) is None
    assert count_records(path) == {"chunks": 2}


# --- counts ---


@pytest.mark.parametrize("folder", [EXAMPLE / "archive", OLD_DATABASE], ids=["1.5.7", "1.4.9.8"])
def test_a_glance_at_a_small_database_is_exact(folder: Path) -> None:
    """The same numbers as the full count, and none of them called an estimate; nothing is written."""
    before = digests(folder)
    found = glance(folder)
    facts, _ = observed(folder)
    assert found.records == {item.name: facts[f"records/{item.name}"] for item in NAMESPACES}
    assert (found.estimated, found.faults, found.problem) == (frozenset(), (), None)
    assert found.sizes == {path.name: path.stat().st_size for path in folder.iterdir() if path.name in FILES}
    assert digests(folder) == before


@given(docs=st.integers(1, 40), dim=st.integers(1, 64), seed=st.integers(0, 9))
@settings(parent=IN_A_FOLDER, max_examples=15)
def test_what_a_glance_calls_exact_is_the_full_count(tmp_path: Path, docs: int, dim: int, seed: int) -> None:
    """With every file above the limits: what is not in `estimated` is exact, the contract's four counts always are."""
    folder = tmp_path / "db"
    shutil.rmtree(folder, ignore_errors=True)
    big_database.build(folder, docs=docs, dim=dim, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "COUNTED", 0)
        patch.setattr(counting, "SAMPLE", 64)
        patch.setattr(matrix, "SEARCHED", 0)
        found = glance(folder, dim)
    full = {
        name: count
        for file in FILES
        if (folder / file).exists()
        for name, count in count_records(folder / file).items()
    }
    assert found.records.keys() == full.keys()
    assert {"entities", "relationships", "chunks", "doc_status"}.isdisjoint(found.estimated)
    for name in full.keys() - found.estimated:
        assert found.records[name] == full[name], name
    assert {"nodes", "edges", "text_chunks"} <= found.estimated


def test_an_estimate_is_near_and_is_called_one(tmp_path: Path) -> None:
    """Records of even size are estimated within a fifth, and to two digits; other layouts are not guessed at."""
    path = tmp_path / "kv_store_text_chunks.json"
    content = {f"chunk-{n}": {"content": "x" * (400 + n % 700)} for n in range(12_345)}
    path.write_text(json.dumps(content, indent=2))
    assert path.stat().st_size > counting.COUNTED
    counted, estimated = glance_records(path)
    assert estimated
    number = counted["text_chunks"]
    assert number is not None
    assert abs(number - 12_345) < 12_345 / 5
    assert number % 1000 == 0
    path.write_text(json.dumps(content))
    assert glance_records(path) == ({"text_chunks": None}, False)


def test_nodes_and_edges_of_a_big_graph_are_estimated(tmp_path: Path) -> None:
    """Both, though all nodes stand before all edges."""
    graph = nx.gnm_random_graph(9_000, 15_000, seed=3)
    nx.set_node_attributes(graph, "d" * 200, "description")
    nx.set_edge_attributes(graph, "e" * 200, "description")
    nx.write_graphml(graph, path := tmp_path / GRAPH_FILE)
    counted, estimated = glance_records(path)
    assert estimated
    assert counted["nodes"] == pytest.approx(9_000, rel=0.2)
    assert counted["edges"] == pytest.approx(15_000, rel=0.2)


# --- what was counted before ---


def test_a_file_is_counted_again_only_when_it_was_written(tmp_path: Path) -> None:
    """Remembered counts are taken for exactly the same file, and for no other."""
    folder = tmp_path / "db"
    shutil.copytree(EXAMPLE / "archive", folder)
    facts, details = observed(folder)
    known = {
        item.name: (details[f"counted/{item.name}"], 1_000_000 + number) for number, item in enumerate(OWN)
    }
    again, same = observed(folder, lambda _: known)
    assert {item.name: again[f"records/{item.name}"] for item in OWN} == {k: v[1] for k, v in known.items()}
    assert same == details
    seen = glance(folder, counts=lambda _: known)
    assert (seen.records["nodes"], seen.estimated) == (known["nodes"][1], frozenset())
    for file in FILES:
        path = folder / file
        before = identity(path)
        copy = path.with_suffix(".new")
        shutil.copy2(path, copy)
        os.replace(copy, path)  # noqa: PTH105 - as LightRAG does it: same name, size and time, another file
        assert identity(path) != before
        renewed, _ = observed(folder, lambda _: known)
        for name in namespaces_of(file):
            assert renewed[f"records/{name}"] == facts[f"records/{name}"], file


# --- what is broken ---


def test_a_damaged_or_odd_file_hides_no_other(tmp_path: Path) -> None:
    """Each is named with its reason, its counts are unknown, all others are told."""
    folder = tmp_path / "db"
    shutil.copytree(EXAMPLE / "archive", folder)
    whole = (folder / "kv_store_text_chunks.json").read_bytes()
    (folder / "kv_store_text_chunks.json").write_bytes(whole[: len(whole) // 2])
    (folder / "vdb_chunks.json").write_text('{"embedding_dim": 96, "data": []}')
    (folder / GRAPH_FILE).write_bytes(b"")
    found = glance(folder, dim=7)
    assert found.problem is None
    broken = {"text_chunks", "chunks", "nodes", "edges"}
    assert {name for name, count in found.records.items() if count is None} == broken
    words = "\n".join(found.faults)
    for part in (
        "kv_store_text_chunks.json",
        "truncated",
        "vdb_chunks.json",
        "no matrix",
        GRAPH_FILE,
        "empty",
    ):
        assert part in words
    assert "its vectors have 96 dimensions, the spec says 7" in words


def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    """Missing, without a database, a file, and a name that the system refuses."""
    assert "does not exist" in str(glance(tmp_path / "gone").problem)
    assert "no LightRAG database" in str(glance(tmp_path).problem)
    (tmp_path / "file").write_text("")
    assert "does not exist" in str(glance(tmp_path / "file").problem)
    assert "cannot be read" in str(glance(tmp_path / ("x" * 300)).problem)


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Root may read everything, so it looks as nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_may_not_be_read_says_so() -> None:
    """One file of a folder, and the folder itself."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / "db"
        shutil.copytree(EXAMPLE / "archive", folder)
        (folder / "vdb_chunks.json").chmod(0)
        with without_rights():
            found = glance(folder)
        assert found.faults == ('"vdb_chunks.json" cannot be read: Permission denied',)
        assert found.records["chunks"] is None
        assert found.records["entities"] is not None
        folder.chmod(0)
        with without_rights():
            assert "cannot be read: Permission denied" in str(glance(folder).problem)
        folder.chmod(0o755)
