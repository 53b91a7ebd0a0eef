"""Stream `vdb_*.json` (NanoVectorDB): rows by a JSON parser, the matrix by offset, in bounded memory.

The file holds every vector twice: `vector` in the row (float16, zlib, base64, original norm) and a row of
`matrix` (float32, L2-normalised). The best reconstruction is matrix row x norm of the float16 copy
(`nano_vector_db_impl.py`, `nano_vectordb/dbs.py`).
"""

from __future__ import annotations

import binascii
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson
import numpy as np
import numpy.typing as npt
import pybase64

from hybridrag.errors import SourceUnreadable
from hybridrag.model.data import Batch, Fault, Vectors

from . import python_json
from .files import BLOCK, RESTORE, vector_dim
from .halves import COPIES_AGREE, norms_of
from .kv import JsonText, as_python_reads
from .matrix import matrix_span

VECTOR_BYTES = 1 << 20
"""Vectors of a batch; its memory is about ten times as much, in several copies."""
_OWN = frozenset({"__id__", "__created_at__", "__write_seq__", "vector"})


class _Matrix:
    """Sequential rows of the base64 matrix, decoded block by block."""

    def __init__(self, path: Path, span: tuple[int, int], dim: int) -> None:
        self._path, self._dim = path, dim
        self._file = path.open("rb")
        self._file.seek(span[0])
        self._left = span[1] - span[0]
        self._pending = b""
        self.exhausted = self._left == 0

    def __enter__(self) -> _Matrix:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def take(self, rows: int) -> Vectors:
        """The next `rows` rows, shape (rows, dim)."""
        wanted = rows * self._dim * 4
        parts, size = [self._pending], len(self._pending)
        while size < wanted and self._left > 0:
            text = self._file.read(min(1 << 20, self._left))
            self._left -= len(text)
            try:
                block = pybase64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise SourceUnreadable(
                    f'the matrix of "{self._path.name}" is not base64: {error}',
                    where=str(self._path),
                    hint=RESTORE,
                ) from None
            parts.append(block)
            size += len(block)
        data = b"".join(parts)
        if len(data) < wanted:
            raise SourceUnreadable(
                f'the matrix of "{self._path.name}" holds fewer rows than its data',
                where=str(self._path),
                hint=RESTORE,
            )
        self._pending = data[wanted:]
        self.exhausted = self._left <= 0 and not self._pending
        return np.frombuffer(data[:wanted], dtype="<f4").reshape(rows, self._dim)


def read_vectors(path: Path, namespace: str, *, skip: int, rows: int) -> Iterator[Batch]:
    """Batches of (id, fields, vector); `created_at` is in epoch seconds."""
    if not path.is_file():
        return
    dim = vector_dim(path)
    if not dim:
        raise SourceUnreadable(f'"{path.name}" does not say its embedding_dim', where=str(path), hint=RESTORE)
    span = matrix_span(path)
    _check_end(path, span[1])
    rows = max(1, min(rows, VECTOR_BYTES // (dim * 4)))
    position = start = 0
    with path.open("rb") as file, _Matrix(path, span, dim) as matrix:
        # The parser is shown the file up to the matrix only, so that it never buffers that huge string.
        counted = JsonText(file, span[0])
        items = as_python_reads(counted, path, _rows, lambda text: python_json.elements_of(text, "data"))
        while chunk := _take(items, rows, path, position):
            position += len(chunk)
            block = matrix.take(len(chunk))
            if position <= skip:
                continue
            batch = Batch(namespace=namespace, position=position)
            for row in chunk:
                batch.keys.append(_row_key(row, position - len(chunk) + len(batch) + 1, path))
                batch.fields.append(_row_fields(row))
            batch.vectors, batch.faults = _restore(chunk, block, path)
            batch.size = counted.done - start + block.nbytes * 4 // 3
            start = counted.done
            first = position - len(chunk)
            yield batch.drop_first(skip - first) if skip > first else batch
        if not matrix.exhausted:
            raise SourceUnreadable(
                f'the matrix of "{path.name}" holds more rows than its data ({position:,})',
                where=str(path),
                hint=RESTORE,
            )


def _check_end(path: Path, end: int) -> None:
    """What follows the matrix must close the file; a file that is cut off there is not whole either."""
    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events)
    try:
        with path.open("rb") as file:
            file.seek(end)
            parser.send(b'{"matrix": "')
            while block := file.read(BLOCK):
                parser.send(block)
                events.clear()
        parser.close()
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise SourceUnreadable(
            f'"{path.name}" does not end as it should: {" ".join(str(error).split())[:60]}',
            where=str(path),
            hint=RESTORE,
        ) from None


def _rows(text: JsonText) -> Iterator[Any]:
    """The parser's complaint about the cut before the matrix is the expected end."""
    try:
        yield from ijson.items(text, "data.item", use_float=True)
    except ijson.IncompleteJSONError as error:
        if "premature EOF" not in str(error):
            raise


def _take(items: Iterator[Any], rows: int, path: Path, position: int) -> list[dict[str, Any]]:
    """Up to `rows` rows."""
    chunk = list(itertools.islice(items, rows))
    for index, row in enumerate(chunk):
        if type(row) is not dict:
            raise SourceUnreadable(
                f'row {position + index + 1:,} of "{path.name}" is not an object',
                where=str(path),
                hint=RESTORE,
            )
    return chunk


def _row_key(row: dict[str, Any], number: int, path: Path) -> str:
    key = row.get("__id__")
    if not isinstance(key, str):
        raise SourceUnreadable(
            f'row {number:,} of "{path.name}" has no "__id__"', where=str(path), hint=RESTORE
        )
    return key


def _row_fields(row: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in row.items() if name not in _OWN}
    if "__created_at__" in row:
        fields["created_at"] = row["__created_at__"]
    return fields


def _half(text: Any, dim: int) -> npt.NDArray[np.float16]:
    """The float16 copy. Raises ValueError for another length, without unpacking what is longer."""
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(pybase64.b64decode(text), 2 * dim + 1)
    if len(data) != 2 * dim or not unpacking.eof:
        raise ValueError(f"it has not {dim:,} dimensions")
    return np.frombuffer(data, dtype="<f2")


def _restore(rows: list[dict[str, Any]], matrix: Vectors, path: Path) -> tuple[Vectors, dict[int, Fault]]:
    """Vectors with their original norm, shape (rows, dim); of a row with a fault, what the matrix says."""
    faults: dict[int, Fault] = {}
    count, dim = matrix.shape
    originals = np.empty((count, dim), dtype=np.float32)
    known: npt.NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
    for index, row in enumerate(rows):
        text = row.get("vector")
        if not text:
            originals[index] = matrix[index]
            continue
        try:
            originals[index] = _half(text, dim)
        except (binascii.Error, zlib.error, ValueError, TypeError) as error:
            reason = f'in "{path.name}" its vector cannot be decoded: {error}'
            faults[index] = Fault(reason=reason, record=row)
            originals[index] = matrix[index]
            continue
        known[index] = True
    norms = norms_of(originals)
    dots = np.einsum("ij,ij->i", originals, matrix, dtype=np.float64)
    # A zero vector is NaN in the matrix (0/0), and beyond 65,504 the float16 copy is infinite: the other copy counts.
    usable = known & np.isfinite(norms) & (norms > 0) & np.isfinite(dots)
    # Both ways: a matrix row that is not of unit length gives a "cosine" above 1.
    apart = usable & (np.abs(1.0 - dots / np.where(usable, norms, 1.0)) > COPIES_AGREE)
    for index in np.flatnonzero(apart).tolist():
        reason = f'"{path.name}" holds two different vectors for it (its data and its matrix disagree)'
        faults[index] = Fault(reason=reason, record=rows[index])
    usable &= ~apart
    scale = np.where(usable, norms, 1.0).astype(np.float32)
    restored = np.where((known & (norms == 0))[:, None], originals, matrix * scale[:, None])
    return np.ascontiguousarray(restored, dtype=np.float32), faults
