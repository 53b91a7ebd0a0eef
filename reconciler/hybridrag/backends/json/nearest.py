"""Nearest vectors as NanoVectorDB finds them: rows of the matrix times the normalised query, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybase64

from hybridrag.model.data import Vectors
from hybridrag.model.findings import Nearest

from .files import BLOCK, vector_dim
from .matrix import matrix_span
from .vectors import read_vectors

TOLERANCE = 1e-3
"""A row of our own making is vector / norm of its float16 copy, so its length is 1 but for float16's precision."""


def nearest(path: Path, namespace: str, queries: Vectors, count: int) -> Nearest:
    """See `Store.nearest`. Two passes over the file, in constant memory."""
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores: npt.NDArray[np.float32] = np.empty((len(queries), 0), dtype=np.float32)
    places: npt.NDArray[np.int64] = np.empty((len(queries), 0), dtype=np.int64)
    start = 0
    for rows in _blocks(path):
        found = np.nan_to_num(unit @ rows.T, nan=-np.inf)  # a zero vector is NaN in the matrix
        numbers = np.arange(start, start + len(rows))
        start += len(rows)
        scores = np.hstack([scores, found])
        places = np.hstack([places, np.broadcast_to(numbers, found.shape)])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
    keys = _keys(path, namespace, set(places.ravel().tolist()))
    return Nearest(
        found=[
            [
                (keys[place], float(score))
                for place, score in zip(row, line, strict=True)
                if np.isfinite(score)
            ]
            for row, line in zip(places.tolist(), scores, strict=True)
        ],
        tolerance=TOLERANCE,
    )


def _blocks(path: Path) -> Iterator[Vectors]:
    """The matrix, three rows of it (or a multiple) at a time: so many whole rows end where a base64 group ends."""
    dim = vector_dim(path)
    if not path.is_file() or not dim:
        return
    start, end = matrix_span(path)
    step = 16 * dim * max(1, BLOCK // (16 * dim))
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            text = file.read(min(step, end - start))
            start += step
            yield np.frombuffer(pybase64.b64decode(text), dtype="<f4").reshape(-1, dim)


def _keys(path: Path, namespace: str, places: set[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for batch in read_vectors(path, namespace, skip=0, rows=1000):
        first = batch.position - len(batch)
        found.update((first + n, key) for n, key in enumerate(batch.keys) if first + n in places)
    return found
