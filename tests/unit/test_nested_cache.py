"""The LLM cache of LightRAG up to 1.3, read as LightRAG 1.5.7 reads it, and files that hold nothing."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridrag.backends.json import files
from hybridrag.backends.json.counting import count_records, glance_records
from hybridrag.backends.json.kv import read_kv
from hybridrag.errors import SourceUnreadable

NAME = "kv_store_llm_response_cache.json"
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5)
ENTRY = st.dictionaries(
    st.sampled_from(["return", "cache_type", "chunk_id", "x"]), VALUES | st.lists(VALUES, max_size=2)
)
MODE = st.dictionaries(st.text(max_size=4), ENTRY, max_size=3) | ENTRY | VALUES
CACHES = st.dictionaries(st.sampled_from(["default", "local", "a:b:c", "x:y", ""]), MODE, max_size=4)


def read(path: Path) -> list[tuple[str, Any]]:
    found = []
    for batch in read_kv(path, "llm_response_cache", skip=0, rows=2):
        for index, (key, fields) in enumerate(zip(batch.keys, batch.fields, strict=True)):
            found.append((key, batch.faults[index].record if index in batch.faults else fields))
    return found


def as_lightrag_reads(folder: Path) -> dict[str, Any]:
    """What the installed LightRAG makes of the file; it is not written, because nothing is flushed."""
    from lightrag.kg.json_kv_impl import JsonKVStorage
    from lightrag.utils import load_json

    storage = object.__new__(JsonKVStorage)
    storage.workspace, storage.namespace = "", "llm_response_cache"
    storage._file_name = str(folder / "rewritten.json")
    return asyncio.run(storage._migrate_legacy_cache_structure(load_json(str(folder / NAME)) or {}))


@settings(max_examples=60, deadline=None)
@given(cache=CACHES, indent=st.sampled_from([None, 2]))
def test_every_cache_is_read_as_lightrag_reads_it(
    tmp_path_factory: pytest.TempPathFactory, cache: dict[str, Any], indent: int | None
) -> None:
    """Nested, flat, or a mixture: the same keys and values, whatever stands in them; and as many are counted."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / NAME).write_text(json.dumps(cache, indent=indent), encoding="utf-8")
    expected = as_lightrag_reads(folder)
    found = read(folder / NAME)
    bare = {
        key: {k: v for k, v in value.items() if k != "_id"} if isinstance(value, dict) else value
        for key, value in expected.items()
    }
    assert json.dumps(dict(found), sort_keys=True) == json.dumps(bare, sort_keys=True)
    assert count_records(folder / NAME) == {"llm_response_cache": len(found)}
    assert glance_records(folder / NAME)[0] == {"llm_response_cache": len(found)}


def test_a_nested_cache_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """One mode that holds everything is not held."""
    entry = {"return": "x" * 2000, "cache_type": "extract", "original_prompt": "y" * 2000}
    cache = {"default": {f"{number:032x}": entry for number in range(5000)}}
    path = tmp_path / NAME
    path.write_text(json.dumps(cache, indent=2), encoding="utf-8")
    del cache
    tracemalloc.start()
    keys = sum(len(batch) for batch in read_kv(path, "llm_response_cache", skip=0, rows=500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert keys == 5000
    assert peak < path.stat().st_size / 3


@pytest.mark.parametrize("text", ["", "  \n", "\ufeff", " " * 5000, "null", "[]", "{}"])
def test_a_file_that_says_nothing_holds_no_records(tmp_path: Path, text: str) -> None:
    """As for LightRAG, which reads it as a missing one."""
    from lightrag.utils import load_json

    path = tmp_path / NAME
    path.write_text(text, encoding="utf-8")
    assert not load_json(str(path))
    assert files.damage(path) is None
    assert count_records(path) == {"llm_response_cache": 0}
    assert read(path) == []


@pytest.mark.parametrize("nested", ['{"a":' * 200_000 + "1" + "}" * 200_000, "[" * 400_000 + "]" * 400_000])
def test_nesting_that_no_parser_takes_is_refused_at_once(tmp_path: Path, nested: str) -> None:
    """A file of a megabyte must not take gigabytes; LightRAG's parser refuses it as well."""
    path = tmp_path / "kv_store_full_docs.json"
    path.write_text('{"good": {"content": "[[[[{{{{"}, "bad": {"content": ' + nested + "}}", encoding="utf-8")
    with pytest.raises(RecursionError):
        json.loads(path.read_text("utf-8"))
    tracemalloc.start()
    with pytest.raises(SourceUnreadable, match="nested"):
        list(read_kv(path, "full_docs", skip=0, rows=10))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20


def test_brackets_in_text_are_no_nesting(tmp_path: Path) -> None:
    """Text full of them is text."""
    path = tmp_path / "kv_store_full_docs.json"
    records = {f"doc-{n}": {"content": "[{" * 3000 + '\\"'} for n in range(50)}
    path.write_text(json.dumps(records, indent=2), encoding="utf-8")
    batches = list(read_kv(path, "full_docs", skip=0, rows=100))
    assert [record for batch in batches for record in batch.fields] == list(records.values())
