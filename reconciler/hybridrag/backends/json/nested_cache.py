"""The LLM cache as LightRAG kept it up to 1.3: `{mode: {hash: entry}}`. Read as LightRAG 1.4 and later read it.

Source: `JsonKVStorage._migrate_legacy_cache_structure` (`lightrag/kg/json_kv_impl.py`, 1.5.7). A file whose first key has
three parts is left as it is; otherwise every value that is an object of objects with a "return" is such a mode, and its
entries become `{mode}:{cache_type}:{hash}`. One entry is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson
from ijson.common import ObjectBuilder

from . import python_json
from .files import BOM, file_of

CACHE_FILE = file_of("llm_response_cache")
Modes = dict[str, bool]
"""Top-level keys, and whether each is a mode whose entries are records."""


def modes_of(path: Path) -> Modes:
    """The modes of a nested cache; empty for any other file, and for one that is no JSON (its reader says why)."""
    if path.name != CACHE_FILE:
        return {}
    try:
        with path.open("rb") as file:
            if (first := _first_key(opened(file))) is None or len(first.split(":")) == 3:
                return {}
            file.seek(0)
            try:
                found = _modes(opened(file))
            except ijson.JSONError:
                file.seek(0)
                found = {key: nested for key, nested, _ in _walked(opened(file))}
    except (ValueError, RecursionError, OSError):
        return {}
    return found if any(found.values()) else {}


def opened(file: BinaryIO) -> BinaryIO:
    """The same file behind its byte order mark, where it has one."""
    if file.read(3) != BOM:
        file.seek(0)
    return file


def _first_key(file: BinaryIO) -> str | None:
    try:
        return next((str(value) for event, value in ijson.basic_parse(file) if event == "map_key"), None)
    except (
        ijson.JSONError
    ):  # not what the streaming parser takes; it may say so before it gives the first key
        file.seek(0)
        return next((key for key, _ in python_json.pairs(opened(file))), None)


def _modes(file: BinaryIO) -> Modes:
    """One pass over the events: at depth 1 stand modes, at depth 2 hashes, at depth 3 the fields of an entry."""
    found: Modes = {}
    depth, mode, returns = 0, "", True
    for event, value in ijson.basic_parse(file):
        if event == "map_key" and depth == 1:
            mode = str(value)
            found[mode] = False
        elif event == "map_key" and depth == 3 and value == "return":
            returns = True
        elif event in ("start_map", "start_array"):
            depth += 1
            if depth == 2:
                found[mode] = event == "start_map"
            elif depth == 3:
                returns = False
                found[mode] = found[mode] and event == "start_map"
        elif event in ("end_map", "end_array"):
            if depth == 3:
                found[mode] = found[mode] and returns
            depth -= 1
        elif event != "map_key" and depth == 2:
            found[mode] = False  # a plain value among the entries
    return found


def _walked(file: BinaryIO) -> Iterator[tuple[str, bool, Any]]:
    """(key, whether it is a mode, its value) by Python's parser, for what the streaming one refuses."""
    for key, value in python_json.pairs(file):
        nested = isinstance(value, dict) and all(
            isinstance(each, dict) and "return" in each for each in value.values()
        )
        yield key, nested, value


def _record(mode: str, digest: str, entry: dict[str, Any]) -> tuple[str, Any]:
    return f"{mode}:{entry.get('cache_type', 'extract')}:{digest}", entry


def pairs(text: Any, modes: Modes) -> Iterator[tuple[str, Any]]:
    """Keys and records, in the order of the file. Raises ijson.JSONError."""
    depth, mode, digest = 0, "", ""
    builder: ObjectBuilder | None = None
    for event, value in ijson.basic_parse(text, use_float=True):
        record_at = 2 if modes.get(mode) else 1
        if event in ("end_map", "end_array"):
            depth -= 1
        if builder is not None:
            builder.event(event, value)
        elif event == "map_key" and depth == 1:
            mode = str(value)
        elif event == "map_key" and depth == 2:
            digest = str(value)
        elif depth == record_at:
            builder = ObjectBuilder()
            builder.event(event, value)
        if event in ("start_map", "start_array"):
            depth += 1
        if builder is not None and depth == record_at:
            yield _record(mode, digest, builder.value) if record_at == 2 else (mode, builder.value)
            builder = None


def python_pairs(text: Any) -> Iterator[tuple[str, Any]]:
    """The same by Python's parser. Raises ValueError, RecursionError."""
    for key, nested, value in _walked(text):
        if nested:
            yield from (_record(key, digest, entry) for digest, entry in value.items())
        else:
            yield key, value


def count(path: Path, modes: Modes) -> int:
    """Records of a nested cache. Raises ijson.JSONError, ValueError."""
    with path.open("rb") as file:
        try:
            return sum(1 for _ in pairs(opened(file), modes))
        except ijson.JSONError:
            file.seek(0)
            return sum(1 for _ in python_pairs(opened(file)))
