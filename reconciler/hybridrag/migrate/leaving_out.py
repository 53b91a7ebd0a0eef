"""Leave records of a source out: whoever reads through this sees all others, and positions go on counting the source's."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Mapping

import numpy as np
import numpy.typing as npt

from hybridrag.model.data import Batch
from hybridrag.model.ports import Reader

from .threads import closed


class LeftOut:
    """Positions of records that stay behind, by stream; 8 bytes each. `streams` counts them."""

    def __init__(self, positions: Mapping[str, array[int]]) -> None:
        self._positions: dict[str, npt.NDArray[np.uint64]] = {
            name: np.sort(np.array(found, dtype=np.uint64)) for name, found in positions.items() if len(found)
        }
        self.streams = {name: len(found) for name, found in self._positions.items()}

    @classmethod
    def from_bytes(cls, data: Mapping[str, bytes]) -> LeftOut:
        """What `to_bytes` gave."""
        return cls({name: array("Q", found) for name, found in data.items()})

    def to_bytes(self) -> dict[str, bytes]:
        """For the journal."""
        return {name: found.tobytes() for name, found in self._positions.items()}

    @property
    def total(self) -> int:
        return sum(self.streams.values())

    def before(self, namespace: str, position: int) -> int:
        """How many stand among the first `position` records of a stream."""
        found = self._positions.get(namespace)
        return 0 if found is None else int(np.searchsorted(found, np.uint64(position), side="right"))

    def of(self, reader: Reader) -> Reader:
        """The reader without these records."""
        return _Others(reader, self) if self.total else reader

    def others(self, batch: Batch) -> Batch:
        """The batch without these records."""
        start = batch.position - len(batch)
        first, last = self.before(batch.namespace, start), self.before(batch.namespace, batch.position)
        if first == last:
            return batch
        gone = {int(position) - start - 1 for position in self._positions[batch.namespace][first:last]}
        return batch.only([index for index in range(len(batch)) if index not in gone])


class _Others:
    """See `model.ports.Reader`; a batch of which nothing is left is passed over."""

    def __init__(self, reader: Reader, left_out: LeftOut) -> None:
        self._reader = reader
        self._left_out = left_out

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        async with closed(self._reader.read(namespace, skip=skip, stop=stop, rows=rows)) as stream:
            async for batch in stream:
                if len(rest := self._left_out.others(batch)):
                    yield rest

    async def fingerprint(self) -> str:
        return await self._reader.fingerprint()

    async def unfinished(self) -> list[str]:
        return await self._reader.unfinished()
