"""The two copies of a vector in a `vdb_*.json`: how they are made of one vector, and what they give back.

`vector` is the float16 copy with the original norm, a row of `matrix` the float32 direction. A reader multiplies
the row by the norm of the float16 copy, so the row written here is the vector divided by exactly that norm: what
is read differs from the vector by one unit in the last place at most, and is written and read again unchanged.
(A row of exact unit length would shift the norm a little with every move.) LightRAG normalises the matrix whenever
it opens it (`nano_vectordb/dbs.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hybridrag.model.data import Vectors

COPIES_AGREE = 1e-3
"""Largest allowed |1 - cos| between the two copies; float16 rounding alone stays far below it."""
_STEPS = 4
_BLOCK = 1 << 15
"""Numbers at a time: what fits into the processor's cache."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Shape (records, dimensions) both; a record whose `halved` is False has no float16 copy, its row is the vector."""

    halves: npt.NDArray[np.float16]
    rows: Vectors
    halved: npt.NDArray[np.bool_]
    restored: Vectors


def norms_of(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Euclidean norms, shape (records,). The same for a row whatever stands beside it, to the last bit."""
    wide = vectors.astype(np.float64)
    return np.sqrt(np.asarray(np.einsum("ij,ij->i", wide, wide), dtype=np.float64))


def copies_of(vectors: Vectors) -> Iterator[Copies]:
    """What is written for finite vectors, and what it gives back when read; some records at a time.

    Norms that float16 cannot hold (beyond 65,504, or so small that its steps show) leave the float16 copy out.
    """
    step = max(1, _BLOCK // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        yield _copies(vectors[start : start + step])


def restored(vectors: Vectors) -> Vectors:
    """What the copies of finite vectors give back; the same shape."""
    whole = np.empty_like(vectors)
    start = 0
    for copies in copies_of(vectors):
        whole[start : start + len(copies.restored)] = copies.restored
        start += len(copies.restored)
    return whole


def _copies(vectors: Vectors) -> Copies:
    with np.errstate(all="ignore"):
        halves = vectors.astype(np.float16)
        back = halves.astype(np.float32)
        norms = norms_of(back)
        usable = np.isfinite(norms) & (norms > 0)
        scale = np.where(usable, norms, 1.0).astype(np.float32)[:, None]
        rows, settled = _divide(vectors, scale, halves, back)
        dots = np.einsum("ij,ij->i", back.astype(np.float64), rows.astype(np.float64))
        agree = np.abs(1.0 - dots / np.where(usable, norms, 1.0)) <= COPIES_AGREE / 2
        zero = ~vectors.any(axis=1)
        halved = (usable & agree & settled) | zero
        rows = np.where(halved[:, None], rows, vectors)
        restored = np.where((halved & ~zero)[:, None], rows * scale, vectors)
    return Copies(halves, rows, halved, restored)


def _divide(
    vectors: Vectors, scale: Vectors, halves: npt.NDArray[np.float16], back: Vectors
) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Rows which times `scale` come nearest to the vectors, without changing their float16 copies (and so the scale)."""
    wide = scale.astype(np.float64)
    rows = (vectors / wide).astype(np.float32)
    product = rows * scale
    for _ in range(_STEPS):
        # A vector beside a rounding limit of float16 may end on its other side.
        crossed = product.astype(np.float16) != halves
        if not crossed.any():
            break
        towards = (back / wide).astype(np.float32)
        rows = np.where(crossed, np.nextafter(rows, towards), rows)
        product = rows * scale
    settled = (product.astype(np.float16) == halves).all(axis=1)
    # Several rows may give the same product: always the same one is written, so that files stay equal.
    again = (product / wide).astype(np.float32)
    rows = np.where(again * scale == product, again, rows)
    return rows, settled
