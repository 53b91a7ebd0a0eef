"""Where the matrix of a `vdb_*.json` stands, and how many rows it has, without reading it.

NanoVectorDB writes `{"embedding_dim": …, "data": […], "matrix": "<base64>"}` and sometimes something small after
it. The base64 text ends near the end of the file, and its beginning is the last byte before that end which is
not base64. That is found by bisection: a look of `PROBE` bytes that is base64 throughout lies in the matrix. Where
anything speaks against it, the file is searched from its end instead. Whoever reads the matrix decodes all of it, so
a file that misleads this (no LightRAG writes one) is refused there, never misread.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from hybridrag.errors import SourceUnreadable

from .files import BLOCK, RESTORE, vector_dim

PROBE = 1 << 16
"""Longer than the base64 of any record's own `vector` (float16, at most 16,000 dimensions)."""
SEARCHED = 4 << 20
"""Files up to this size are searched; bisecting them would save nothing."""
_MATRIX = re.compile(rb'"matrix"\s*:\s*"')
_MATRIX_BYTES = 64
"""More than that expression ever takes."""
_OTHER = re.compile(rb"[^A-Za-z0-9+/]")
_PADDING = re.compile(rb'={0,2}"')


def matrix_span(path: Path) -> tuple[int, int]:
    """(first, last+1) byte of the base64 text of `matrix`. Raises SourceUnreadable when the file has none."""
    size = path.stat().st_size
    found = bisected(path, PROBE) if size > SEARCHED else None
    return found or searched(path)


def matrix_rows(path: Path) -> int | None:
    """Rows of the matrix; None when it holds no whole number of them. Raises SourceUnreadable."""
    dim = vector_dim(path)
    start, end = matrix_span(path)
    if not dim or (end - start) % 4:
        return None
    with path.open("rb") as file:
        file.seek(max(start, end - 2))
        padding = file.read(min(2, end - start)).count(b"=")
    rows, rest = divmod((end - start) // 4 * 3 - padding, 4 * dim)
    return None if rest else rows


def bisected(path: Path, probe: int) -> tuple[int, int] | None:
    """The span in some 20 looks of `probe` bytes; None where it cannot be told this way."""
    size = path.stat().st_size
    with path.open("rb") as file:
        inside = max(0, size - probe)
        tail = _look(file, inside, size)
        first = _OTHER.search(tail)
        # The tail must begin in the matrix and meet its closing quote.
        if first is None or not first.start() or not _PADDING.match(tail, first.start()):
            return None
        end = inside + tail.index(b'"', first.start())
        outside = 0
        while inside - outside > 2 * probe:
            middle = (outside + inside) // 2
            others = [match.start() for match in _OTHER.finditer(_look(file, middle, middle + probe))]
            if others:
                outside = middle + others[-1]
            else:
                inside = middle
        block = _look(file, max(0, outside - _MATRIX_BYTES), inside)
        before = max((match.end() for match in _OTHER.finditer(block)), default=0)
        opened = [match for match in _MATRIX.finditer(block) if match.end() == before]
        if not opened or block[opened[0].start() - 1 : opened[0].start()] == b"\\":
            return None
        return inside - len(block) + before, end


def _look(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)


def searched(path: Path) -> tuple[int, int]:
    """The span by reading from the end, where the matrix stands, up to its beginning."""
    stop, rest = path.stat().st_size, b""
    start = -1
    with path.open("rb") as file:
        while stop > 0 and start < 0:
            begin = max(0, stop - BLOCK)
            file.seek(begin)
            block = file.read(stop - begin) + rest
            if (found := _after_last_matrix(block)) >= 0:
                start = begin + found
            rest, stop = block[:_MATRIX_BYTES], begin
        if start < 0:
            raise SourceUnreadable(f'"{path.name}" has no matrix (truncated?)', where=str(path), hint=RESTORE)
        file.seek(start)
        position = start
        while block := file.read(BLOCK):
            quote = block.find(b'"')
            if quote >= 0:
                return start, position + quote
            position += len(block)
    raise SourceUnreadable(f'"{path.name}" ends inside its matrix', where=str(path), hint=RESTORE)


def _after_last_matrix(block: bytes) -> int:
    at = len(block)
    while (at := block.rfind(b'"matrix"', 0, at)) >= 0:
        if match := _MATRIX.match(block, at):
            return match.end()
    return -1
