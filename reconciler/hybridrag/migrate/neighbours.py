"""Nearest-neighbour parity: does the target's engine compare vectors as the source's own numbers say?

Digests prove that the same numbers lie there, not that the engine reads them in the same order, by the same distance,
in the width that was meant. So sampled vectors are searched for: the target says what it finds nearest by its exact
search, and a pass over the source's vectors says what is nearest. Compared is by score: equally near ones may change
places.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hybridrag.model.data import Batch, Vectors, printable
from hybridrag.model.findings import Nearest
from hybridrag.model.ports import Reader, Store

SAMPLE = 10
"""Vectors of each stream that are searched for."""
NEAREST = 10
_MARGIN = 2 * NEAREST
"""So many are known exactly, so that one that only just missed the nearest is told from a wrong one."""
LISTED = 5

Scores = npt.NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Parity:
    """`agreed` of `queries` searches found what they must among the `nearest`.

    `worst` is the largest deviation of a score (cosine similarity), `tolerance` the one that the target's own way of
    keeping vectors allows.
    """

    queries: int = 0
    agreed: int = 0
    nearest: int = NEAREST
    worst: float = 0.0
    tolerance: float = 0.0
    listed: list[str] = field(default_factory=list)

    @property
    def apart(self) -> int:
        return self.queries - self.agreed

    def add(self, other: Parity) -> None:
        self.queries += other.queries
        self.agreed += other.agreed
        self.worst = max(self.worst, other.worst)
        self.tolerance = max(self.tolerance, other.tolerance)
        self.listed += other.listed[: max(0, LISTED - len(self.listed))]

    def __str__(self) -> str:
        return (
            f"{self.agreed} of {self.queries} searches find the {self.nearest} nearest vectors of the source "
            f"(scores within {self.worst:.1g}, allowed {self.tolerance:.0e})"
        )


class Sample:
    """Some vectors of each stream, evenly drawn: those whose keys have the smallest checksums. See `watching`."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._size = size
        self._kept: dict[str, list[tuple[int, str, bytes]]] = {}

    def add(self, batch: Batch) -> None:
        if batch.vectors is None:
            return
        heap = self._kept.setdefault(batch.namespace, [])
        for index, key in enumerate(batch.keys):
            rank = -zlib.crc32(key.encode("utf-8", "surrogatepass"))
            if index in batch.faults or (len(heap) == self._size and rank <= heap[0][0]):
                continue
            vector = batch.vectors[index]
            if not np.isfinite(vector).all() or not vector.any():
                continue  # nothing is near to it
            heapq.heappush(heap, (rank, key, vector.tobytes()))
            if len(heap) > self._size:
                heapq.heappop(heap)

    def of(self, stream: str) -> tuple[list[str], Vectors]:
        """(keys, vectors of shape (sample, dim))."""
        drawn = sorted(self._kept.get(stream, ()), reverse=True)
        rows = [np.frombuffer(data, dtype=np.float32) for _, _, data in drawn]
        return [key for _, key, _ in drawn], np.array(rows, dtype=np.float32)

    @property
    def streams(self) -> Iterable[str]:
        return self._kept.keys()


async def compare_neighbours(source: Reader, target: Store, sample: Sample, rows: int) -> Parity | None:
    """One more pass over the source's vectors, in constant memory. None where the target cannot be compared with."""
    whole: Parity | None = None
    for stream in sample.streams:
        keys, queries = sample.of(stream)
        if not keys:
            continue
        expected = await nearest_of(source, stream, queries, rows)
        found = await target.nearest(stream, queries, NEAREST, [list(near) for near in expected])
        if found is not None:
            whole = whole or Parity()
            whole.add(_compared(stream, keys, expected, found))
    return whole


async def nearest_of(
    source: Reader, stream: str, queries: Vectors, rows: int, count: int = _MARGIN
) -> list[dict[str, float]]:
    """For each query the `count` nearest keys of a stream with their cosine similarity, best first."""
    wanted = _unit(queries.astype(np.float64))
    scores: Scores = np.empty((len(queries), 0))
    names: npt.NDArray[np.object_] = np.empty((len(queries), 0), dtype=object)
    async for batch in source.read(stream, rows=rows):
        if batch.vectors is None:
            continue
        with np.errstate(all="ignore"):
            found = wanted @ _unit(batch.vectors.astype(np.float64)).T
        keys = np.array(batch.keys, dtype=object)
        scores = np.hstack([scores, np.nan_to_num(found, nan=-np.inf)])
        names = np.hstack([names, np.broadcast_to(keys, (len(queries), len(keys)))])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores, names = np.take_along_axis(scores, best, 1), np.take_along_axis(names, best, 1)
    return [
        {key: float(score) for key, score in zip(row, line, strict=True) if np.isfinite(score)}
        for row, line in zip(names, scores, strict=True)
    ]


def _unit(vectors: Scores) -> Scores:
    with np.errstate(all="ignore"):
        unit: Scores = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _compared(stream: str, keys: list[str], expected: list[dict[str, float]], found: Nearest) -> Parity:
    parity = Parity(tolerance=found.tolerance)
    for key, near, said in zip(keys, expected, found.found, strict=False):
        parity.queries += 1
        deviation, wrong = _deviation(near, said, found.tolerance)
        if wrong is None:
            parity.agreed += 1
            parity.worst = max(parity.worst, deviation)
        elif len(parity.listed) < LISTED:
            parity.listed.append(f'{stream} near "{printable(key, 60)}": {wrong}')
    return parity


def _deviation(
    near: Mapping[str, float], said: list[tuple[str, float]], tolerance: float
) -> tuple[float, str | None]:
    """(largest deviation of a score, what is wrong)."""
    best = list(near.values())[:NEAREST]
    if len(said) != len(best):
        return 0.0, f"{len(said)} found, {len(best)} are there"
    worst = 0.0
    for rank, ((name, score), must) in enumerate(zip(said, best, strict=True), 1):
        # One that is not known is farther away than all that are; it may only be there by a tie.
        really = near.get(name, must)
        apart = max(abs(score - must), abs(score - really))
        if not apart <= tolerance:
            what = f'number {rank} is "{printable(name, 60)}" with {score:.6f}'
            return apart, f"{what}, {max(must, really):.6f} is expected there"
        worst = max(worst, apart)
    return worst, None
