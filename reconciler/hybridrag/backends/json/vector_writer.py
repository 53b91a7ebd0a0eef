"""Records as rows of a `vdb_*.json`, as LightRAG and NanoVectorDB write them.

The matrix follows the rows in the file, so it is kept aside until all rows are written.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pybase64

from hybridrag.model.data import Batch

from .halves import copies_of

_BLOCK = 3 << 20
"""Bytes of the matrix at a time; a multiple of three needs no base64 padding in between."""


def vector_text(batch: Batch, dim: int, *, first: bool) -> Iterator[bytes]:
    """Rows of `data`, then float32 rows of the matrix, of an examined batch; the first of a file opens it."""
    if batch.vectors is None or not len(batch):
        return
    matrix: list[bytes] = []
    before = _opening(dim) if first else ", "
    index = 0
    for copies in copies_of(batch.vectors):
        matrix.append(copies.rows.astype("<f4", copy=False).tobytes())
        for halves, halved in zip(copies.halves.astype("<f2", copy=False), copies.halved, strict=True):
            yield (
                before + _row(batch.keys[index], batch.fields[index], halves.tobytes() if halved else None)
            ).encode()
            before = ", "
            index += 1
    yield from matrix


def _opening(dim: int) -> str:
    return f'{{"embedding_dim": {dim}, "data": ['


def _row(key: str, fields: dict[str, Any], halves: bytes | None) -> str:
    row: dict[str, Any] = {"__id__": key}
    if "created_at" in fields:
        row["__created_at__"] = fields["created_at"]
    row.update((name, value) for name, value in fields.items() if name != "created_at")
    if halves is not None:
        row["vector"] = base64.b64encode(zlib.compress(halves)).decode()
    return json.dumps(row, ensure_ascii=False)


def vector_end(records: int, dim: int, matrix: Path) -> Iterator[bytes]:
    """What follows the rows: the matrix, read block by block, and the end of the object."""
    yield ("" if records else _opening(dim)).encode() + b'], "matrix": "'
    if records:
        with matrix.open("rb") as file:
            while block := file.read(_BLOCK):
                yield pybase64.b64encode(block)
    yield b'"}'
