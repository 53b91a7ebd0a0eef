"""What two states of a JSON database do not have in common, told by raw bytes, is what reading both as a whole tells."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridrag.backends.json.store import JsonReader
from hybridrag.migrate.catching_up import digests_of
from hybridrag.model.ports import Changes, Reader

DIM = 7
"""Three rows do not end on a border of base64."""
STREAMS = ("full_docs", "entities", "nodes", "edges")
TRAPS = [
    '\n  "',
    '\n  },\n  "x": {',
    '{"__id__": "a", ',
    '}, {"__id__": "',
    '], "matrix": "',
    "<node id=",
    "</node>\n</graph></graphml>",
    "<!-- <edge source=",
    '"',
    "\\",
    "ü中\u2028",
]
_text = st.lists(st.sampled_from(TRAPS) | st.text("ab €", max_size=3), max_size=4).map("".join)
_key = _text.map(lambda text: text + "k")
_records = st.dictionaries(_key, _text, max_size=8)


@st.composite
def _states(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str]]:
    """Some records, and what becomes of them: edited, removed, added, put in another order."""
    old = draw(_records)
    new = {}
    for key in draw(st.permutations(sorted(old))) if draw(st.booleans()) else sorted(old):
        fate = draw(st.sampled_from(["keep", "keep", "keep", "edit", "drop"]))
        if fate != "drop":
            new[key] = old[key] if fate == "keep" else draw(_text)
    return dict(sorted(old.items())), {**new, **draw(_records)}


def write(folder: Path, state: dict[str, str]) -> None:
    """A database of these records as LightRAG writes it; each file replaced, as 1.5 does."""
    folder.mkdir(exist_ok=True)
    kv = {key: {"content": text, "n": len(text), "_id": key} for key, text in state.items()}
    _replace(folder / "kv_store_full_docs.json", json.dumps(kv, indent=2, ensure_ascii=False))
    rows: list[dict[str, Any]] = [
        {"__id__": key, "__created_at__": 1, "content": text} for key, text in state.items()
    ]
    matrix = np.array([_vector(key, text) for key, text in state.items()], dtype=np.float32)
    whole = {"embedding_dim": DIM, "data": rows, "matrix": base64.b64encode(matrix.tobytes()).decode()}
    _replace(folder / "vdb_entities.json", json.dumps(whole, ensure_ascii=False))
    graph = nx.Graph()
    graph.add_node("root", text="", n=1)
    graph.add_node("other", text="", n=1)
    graph.add_edge("root", "other", text="", weight=1.0)  # the head of the file names what its edges hold
    for key, text in state.items():
        graph.add_node(key, text=text, n=len(text))
        graph.add_edge("root", key, text=text, weight=1.5)
    nx.write_graphml(graph, folder / "new.graphml")
    (folder / "new.graphml").replace(folder / "graph_chunk_entity_relation.graphml")


def _vector(key: str, text: str) -> list[float]:
    """Not only the text decides: a vector may change alone, where a text is as long as before."""
    return [float(len(text) % 3), float(len(key)), *range(1, DIM - 1)]


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


async def _records_of(reader: Reader, name: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async for batch in reader.read(name, rows=3):
        assert not batch.faults
        found.update(digests_of(batch))
    return found


@contextmanager
def _folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="differing-"))
    try:
        yield place / "notes"
    finally:
        shutil.rmtree(place)


async def _told(folder: Path, *, prepared: bool, write_new: Any) -> tuple[dict[str, Any], bool]:
    """(by stream: before, after, whole before, whole after; whether it could be told)."""
    reader = JsonReader(folder)
    async with reader.snapshot() as moment:
        if prepared:
            await moment.prepare()
        old = {name: await _records_of(moment, name) for name in STREAMS}
        write_new()
        async with moment.until(reader) as changes:
            if changes is None:
                return {}, False
            assert isinstance(changes, Changes)
            found = {
                name: (
                    await _records_of(changes.before, name),
                    await _records_of(changes.after, name),
                    old[name],
                    await _records_of(reader, name),
                )
                for name in STREAMS
            }
    assert not (folder / ".hybridrag").exists()
    return found, True


@given(_states(), st.booleans())
@settings(max_examples=60)
def test_it_is_what_reading_everything_tells(
    states: tuple[dict[str, str], dict[str, str]], prepared: bool
) -> None:
    """(records before - as they were) + as they are = records after; and no record that is the same is among them."""
    old, new = states
    with _folder() as folder:
        write(folder, old)
        found, told = asyncio.run(_told(folder, prepared=prepared, write_new=lambda: write(folder, new)))
    assert told
    for name, (before, after, whole_before, whole_after) in found.items():
        assert before.items() <= whole_before.items(), name
        kept = {key: digest for key, digest in whole_before.items() if key not in before}
        assert kept.keys().isdisjoint(after), name
        assert {**kept, **after} == whole_after, name
        assert not before.items() & after.items(), name


STRANGE = {
    "another layout": lambda text: text.replace('\n  "', '\n   "'),
    "a key twice": lambda text: text.replace('  "b": {', '  "a": {'),
    "a nested key where a record's stands": lambda text: text.replace('    "n"', '  "n"'),
    "two records in one line": lambda text: text.replace("\n  },\n  ", "\n  }, "),
    "a blank at the end": lambda text: text + "\n",
    "no object": lambda text: text.replace('"b": {', '"b": 3, "c": {'),
    "NaN": lambda text: text.replace('"n": 3', '"n": NaN'),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_looks_otherwise_is_left_to_a_whole_pass(tmp_path: Path, strange: str, when: str) -> None:
    folder = tmp_path / "notes"
    path = folder / "kv_store_full_docs.json"
    write(folder, {"a": "one", "b": "two", "d": "six"})
    other = STRANGE[strange](path.read_text("utf-8"))
    assert other != path.read_text("utf-8")
    if when == "before":
        _replace(path, other)

    def write_new() -> None:
        write(folder, {"a": "one", "b": "2", "d": "six"})
        if when == "after":
            _replace(path, other)

    reader = JsonReader(folder)
    async with reader.snapshot() as moment:
        await moment.prepare()
        write_new()
        async with moment.until(reader) as changes:
            assert changes is None


async def test_a_file_written_in_place_is_left_to_a_whole_pass(tmp_path: Path) -> None:
    """LightRAG 1.4 writes like this: the link shows the new bytes, so nothing is known of the old ones."""
    folder = tmp_path / "notes"
    write(folder, {"a": "one"})
    path = folder / "kv_store_full_docs.json"
    reader = JsonReader(folder)
    async with reader.snapshot() as moment:
        await moment.prepare()
        path.write_text(path.read_text("utf-8").replace("one", "two"), encoding="utf-8")
        os.utime(path, ns=(1, 1))
        async with moment.until(reader) as changes:
            assert changes is None


async def test_a_later_moment_goes_on_from_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    write(folder, {"a": "one", "b": "two"})
    reader = JsonReader(folder)
    async with reader.snapshot() as first:
        write(folder, {"a": "one", "b": "three"})
        async with reader.snapshot() as second:
            async with first.until(second) as changes:
                assert changes is not None
                assert list(await _records_of(changes.after, "full_docs")) == ["b"]
            write(folder, {"b": "three"})
            async with second.until(reader) as changes:
                assert changes is not None
                assert list(await _records_of(changes.before, "full_docs")) == ["a"]
                assert await _records_of(changes.after, "full_docs") == {}
