"""The raw records of one file, told apart at the speed of a search, in the very form in which LightRAG writes it.

Where each record begins and ends is found without a parser: a raw line break cannot stand inside a JSON string, an
unescaped `{"__id__": ` neither, and `<` not in XML text. Whatever looks otherwise (another layout, a key twice, a file
from another hand) is refused with `Unknown`, and then somebody reads the whole file.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pybase64

from hybridrag.model.data import BY_NAME, Slot

from .files import BLOCK, GRAPH_FILE, namespaces_of, vector_dim
from .matrix import matrix_span
from .nested_cache import modes_of

GROUP = 4 << 20
"""Bytes of records that are looked at together."""
_KV_KEY = re.compile(rb'\n  "(?:[^"\\\n]|\\.)*": \{')
_ROW_KEY = re.compile(rb'\{"__id__": "(?:[^"\\]|\\.)*"')
_ELEMENT_KEY = re.compile(rb'<(?:node id="[^"<>]*"|edge source="[^"<>]*" target="[^"<>]*")(?=[ />])')
_ROWS_HEAD = re.compile(rb'\{"embedding_dim": \d+, "data": \[\Z')
_ROWS_END = b'], "matrix": "'
_EMPTY_ELEMENT = re.compile(rb"<[^<>]*/>\Z")


class Unknown(ValueError):
    """The file is not in the form that can be taken apart."""


class Raw:
    """One file, read by offset. Never mapped: a file that is cut off while it is read must not take us down."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._handle).st_size

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._handle)

    def read(self, start: int, stop: int) -> bytes:
        """Exactly these bytes. Raises Unknown where the file ends before."""
        data = os.pread(self._handle, stop - start, start)
        while len(data) < stop - start:
            if not (more := os.pread(self._handle, stop - start - len(data), start + len(data))):
                raise Unknown("it was cut off meanwhile")
            data += more
        return data

    def find_all(self, wanted: bytes, start: int, stop: int) -> Iterator[int]:
        """Offsets of `wanted` between two places."""
        overlap = len(wanted) - 1
        for begin in range(start, stop, BLOCK):
            block = self.read(begin, min(stop, begin + BLOCK + overlap))
            at = block.find(wanted)
            while at >= 0:
                yield begin + at
                at = block.find(wanted, at + 1)


@dataclass(slots=True, kw_only=True)
class Pieces:
    """Where the records of a file stand: `bounds[2 i]` to `bounds[2 i + 1]` is record i; `places` tells i by raw key.

    `head`, `glue` and `tail` are what stands before, between and behind them. `matrix` is the span of the base64 text
    of a vector file's matrix, whose rows take `row` bytes each.
    """

    head: bytes
    glue: bytes
    tail: bytes
    bounds: array[int] = field(default_factory=lambda: array("q"))
    places: dict[bytes, int] = field(default_factory=dict)
    matrix: tuple[int, int] = (0, 0)
    row: int = 0

    def __len__(self) -> int:
        return len(self.bounds) // 2

    def groups(self) -> Iterator[range]:
        """Neighbouring records, about `GROUP` bytes at a time."""
        first = 0
        for index in range(len(self)):
            if self.bounds[2 * index + 1] - self.bounds[2 * first] >= GROUP:
                yield range(first, index + 1)
                first = index + 1
        if first < len(self):
            yield range(first, len(self))

    def texts(self, raw: Raw, group: range) -> list[bytes]:
        """The raw text of each record of a group."""
        start = self.bounds[2 * group[0]]
        block = raw.read(start, self.bounds[2 * group[-1] + 1])
        bounds = self.bounds
        return [block[bounds[2 * i] - start : bounds[2 * i + 1] - start] for i in group]

    def rows(self, raw: Raw, first: int, stop: int) -> bytes:
        """Some rows of the matrix, as float32 bytes. Raises Unknown."""
        begin, end = first * self.row, stop * self.row
        text = raw.read(
            self.matrix[0] + begin // 3 * 4, min(self.matrix[1], self.matrix[0] + -(-end // 3) * 4)
        )
        try:
            data = pybase64.b64decode(text, validate=True)
        except ValueError:
            raise Unknown("its matrix is not base64") from None
        return data[begin % 3 : begin % 3 + end - begin]


def pieces_of(raw: Raw, path: Path) -> Pieces:
    """Take a file apart. Raises Unknown, SourceUnreadable."""
    found, name = _form_of(path.name)(raw, path), path.name
    bounds, glue = found.bounds, found.glue
    for group in found.groups():
        start = bounds[2 * group[0]]
        last = group[-1] + 1 == len(found)
        block = raw.read(start, bounds[2 * group[-1] + 1] + (0 if last else len(glue)))
        for index in group:
            stop = bounds[2 * index + 1] - start
            if index + 1 < len(found) and block[stop : stop + len(glue)] != glue:
                raise Unknown("something stands between two records")
            found.places[key_of(name, block[bounds[2 * index] - start : stop])] = index
    if len(found.places) != len(found):
        raise Unknown("a key stands twice")
    return found


def _form_of(name: str) -> Callable[[Raw, Path], Pieces]:
    if name == GRAPH_FILE:
        return _graph
    (namespace,) = namespaces_of(name)
    if namespace == "llm_response_cache":
        return _cache
    return _vectors if BY_NAME[namespace].slot is Slot.VECTOR else _kv


def key_of(name: str, text: bytes) -> bytes:
    """The raw key that a record begins with, and whether it ends as one. Raises Unknown."""
    if name == GRAPH_FILE:
        match = _ELEMENT_KEY.match(text)
        end = b"</node>" if text.startswith(b"<node") else b"</edge>"
        whole = text.endswith(end) or _EMPTY_ELEMENT.match(text) is not None
    else:
        match = (_KV_KEY if text.startswith(b"\n") else _ROW_KEY).match(text)
        whole = text.endswith(b"}")
    if match is None or not whole:
        raise Unknown("a record looks otherwise")
    return match[0]


def check_each(raw: Raw, path: Path, found: Pieces) -> None:
    """Parse each record by itself, so that what was taken for one surely is one. Raises Unknown.

    An element of a graph needs none: it holds no other, and is closed.
    """
    if path.name == GRAPH_FILE:
        return
    for group in found.groups():
        for text in found.texts(raw, group):
            check(text)


def check(text: bytes) -> None:
    """Whether one raw record of a JSON file is one record, of fields. Raises Unknown."""
    try:
        value = orjson.loads(b"{" + text + b"}" if text.startswith(b"\n") else text)
    except ValueError:
        raise Unknown("a record cannot be parsed by itself") from None
    if text.startswith(b"\n"):
        value = next(iter(value.values())) if len(value) == 1 else None
    if type(value) is not dict:
        raise Unknown("what stands for a record is none")


def _split(found: Pieces, starts: list[int], end: int) -> Pieces:
    """Fill in the bounds, as if only the glue stood between two records."""
    glue = len(found.glue)
    for index, start in enumerate(starts):
        found.bounds.extend((start, (starts[index + 1] - glue) if index + 1 < len(starts) else end))
    return found


def _kv(raw: Raw, path: Path) -> Pieces:
    if raw.size <= 2:
        if raw.read(0, raw.size) != b"{}":
            raise Unknown("it does not begin as LightRAG writes it")
        return Pieces(head=b"{", glue=b",", tail=b"\n}")
    end = raw.size - 2
    if raw.read(0, 5) != b'{\n  "' or raw.read(end, raw.size) != b"\n}":
        raise Unknown("it does not begin and end as LightRAG writes it")
    found = Pieces(head=b"{", glue=b",", tail=b"\n}")
    return _split(found, list(raw.find_all(b'\n  "', 1, end)), end)


def _cache(raw: Raw, path: Path) -> Pieces:
    if modes_of(path):
        raise Unknown("its records stand two levels deep")
    return _kv(raw, path)


def _vectors(raw: Raw, path: Path) -> Pieces:
    dim = vector_dim(path)
    start, stop = matrix_span(path)
    end = start - len(_ROWS_END)
    if not dim or end < 0 or raw.read(end, start) != _ROWS_END or raw.size - stop > BLOCK:
        raise Unknown("its matrix does not stand where LightRAG writes it")
    starts = list(raw.find_all(b'{"__id__": ', 0, end))
    head = raw.read(0, starts[0] if starts else end)
    if not _ROWS_HEAD.match(head) or -(-len(starts) * dim * 4 // 3) * 4 != stop - start:
        raise Unknown("it holds another number of rows than of vectors")
    found = Pieces(head=head, glue=b", ", tail=raw.read(stop, raw.size), matrix=(start, stop), row=4 * dim)
    return _split(found, starts, end)


def _graph(raw: Raw, path: Path) -> Pieces:
    tail = b"\n</graph></graphml>"
    end = raw.size - len(tail)
    if end < 0 or raw.read(end, raw.size) != tail:
        raise Unknown("it does not end as networkx writes it")
    for strange in (b"<!", b"<?"):
        if next(raw.find_all(strange, 2, raw.size), None) is not None:
            raise Unknown("it holds what networkx does not write")
    nodes = list(raw.find_all(b"<node ", 0, end))
    edges = list(raw.find_all(b"<edge ", 0, end))
    starts = sorted(nodes + edges)
    if not starts:
        raise Unknown("it holds no element")
    found = Pieces(head=raw.read(0, starts[0]), glue=b"\n", tail=tail)
    return _split(found, starts, end)
