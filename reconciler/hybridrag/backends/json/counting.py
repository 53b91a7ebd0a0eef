"""How many records a file of a JSON database holds: exactly, or at a glance.

Exact counting reads blocks and looks for what can only be structure; no file is ever loaded whole. A glance reads
a few megabytes at most: small files and vector files are counted, big ones estimated from evenly spread samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import ijson

from hybridrag.errors import SourceUnreadable
from hybridrag.model.data import BY_NAME, Slot

from . import nested_cache, python_json
from .files import BLOCK, BOM, GRAPH_FILE, INDENTED, blank, file_of, namespaces_of
from .matrix import matrix_rows, matrix_span

COUNTED = 4 << 20
"""Files up to this size are counted at a glance, too."""
DOCUMENTS_COUNTED = 64 << 20
"""The same for the document status, which is small and tells how many documents there are."""
SAMPLES = 32
SAMPLE = 1 << 15
_ID = re.compile(rb'"__id__"\s*:')
_ID_BYTES = 64
_KEY = b'\n  "'
"""In an indented file always a top-level key: a raw line break cannot stand inside a JSON string."""

Count = Callable[[bytes], int]


def count_records(path: Path) -> dict[str, int]:
    """Records by namespace in one file, without loading it. Raises SourceUnreadable."""
    if path.name == GRAPH_FILE:
        return {"nodes": _count_tags(path, b"node"), "edges": _count_tags(path, b"edge")}
    (name,) = namespaces_of(path.name)
    if BY_NAME[name].slot is Slot.VECTOR:
        rows = matrix_rows(path)
        return {name: _count_ids(path, matrix_span(path)[0]) if rows is None else rows}
    if blank(path):
        return {name: 0}
    if modes := nested_cache.modes_of(path):
        return {name: nested_cache.count(path, modes)}
    return {name: _count_keys(path)}


def glance_records(path: Path) -> tuple[dict[str, int | None], bool]:
    """(records by namespace, whether they are estimates); None where a glance cannot tell. Raises SourceUnreadable."""
    size = path.stat().st_size
    most = DOCUMENTS_COUNTED if path.name == file_of("doc_status") else COUNTED
    if size <= most:
        return {**count_records(path)}, False
    if path.name == GRAPH_FILE:
        tags = {"nodes": _tag(b"node"), "edges": _tag(b"edge")}
        counts: dict[str, Count] = {name: _finder(tag) for name, tag in tags.items()}
        return _estimates(path, size, counts), True
    (name,) = namespaces_of(path.name)
    if BY_NAME[name].slot is Slot.VECTOR:
        return {name: matrix_rows(path)}, False
    if not _indented(path) or nested_cache.modes_of(path):
        return {name: None}, False
    return _estimates(path, size, {name: lambda block: block.count(_KEY)}), True


def _finder(tag: re.Pattern[bytes]) -> Count:
    return lambda block: len(tag.findall(block))


def _estimates(path: Path, size: int, counts: dict[str, Count]) -> dict[str, int | None]:
    """What evenly spread samples let expect of the whole file, to two digits."""
    found = dict.fromkeys(counts, 0)
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            block = file.read(SAMPLE)
            for name, count in counts.items():
                found[name] += count(block)
    return {name: _rounded(max(1, seen * size // (SAMPLES * SAMPLE))) for name, seen in found.items()}


def _rounded(count: int) -> int:
    return round(count, 2 - len(str(count)))


def _blocks(file: BinaryIO, end: int, overlap: int) -> Iterator[bytes]:
    """Blocks up to `end`, each starting with the last `overlap` bytes of the one before."""
    rest = b""
    left = end - file.tell()
    while left > 0 and (block := file.read(min(BLOCK, left))):
        left -= len(block)
        yield rest + block
        rest = block[-overlap:] if overlap else b""


def _tag(name: bytes) -> re.Pattern[bytes]:
    """Start tags of one name; `<` cannot stand in XML text."""
    return re.compile(b"<" + name + rb"[\s/>]")


def _count_tags(path: Path, name: bytes) -> int:
    tag = _tag(name)
    with path.open("rb") as file:
        return sum(len(tag.findall(block)) for block in _blocks(file, path.stat().st_size, len(name) + 1))


def _count_ids(path: Path, end: int) -> int:
    """Rows of a vector file; a quote inside a text is escaped, so this is always a key."""
    found = seen = 0
    with path.open("rb") as file:
        for block in _blocks(file, end, _ID_BYTES):
            found += sum(match.end() > seen for match in _ID.finditer(block))
            seen = min(_ID_BYTES, len(block))
    return found


def _indented(path: Path) -> bool:
    with path.open("rb") as file:
        return INDENTED.match(file.read(16)) is not None


def _count_keys(path: Path) -> int:
    try:
        with path.open("rb") as file:
            if _indented(path):
                # A key cannot lie wholly inside the overlap, so none is counted twice.
                return sum(block.count(_KEY) for block in _blocks(file, path.stat().st_size, len(_KEY) - 1))
            if file.read(3) != BOM:
                file.seek(0)
            start = file.tell()
            try:
                return _top_level_keys(file)
            except (ijson.JSONError, UnicodeDecodeError) as error:
                file.seek(start)  # NaN, and halves of characters, are JSON to Python, and so to LightRAG
                return _keys_by_python(path, file, error)
    except OSError as error:
        raise SourceUnreadable(f'"{path.name}" cannot be read: {error.strerror}', where=str(path)) from None


def _keys_by_python(path: Path, file: BinaryIO, refused: Exception) -> int:
    try:
        return sum(1 for _ in python_json.pairs(file))
    except (ValueError, RecursionError):
        where = " ".join(str(refused).split())[:80]
        raise SourceUnreadable(f'"{path.name}" is not valid JSON: {where}', where=str(path)) from None


def _top_level_keys(file: BinaryIO) -> int:
    found = depth = 0
    for event, _ in ijson.basic_parse(file):
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
        elif event == "map_key" and depth == 1:
            found += 1
    return found
