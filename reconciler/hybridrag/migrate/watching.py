"""Look over the shoulder of a pass that is made anyway: whoever watches a reader is shown every stream once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from hybridrag.model.data import Batch
from hybridrag.model.ports import Reader


class Watcher(Protocol):
    """Is given every batch of a stream, in any order of the streams."""

    def add(self, batch: Batch) -> None: ...


class Watched:
    """See `model.ports.Reader`. The first whole reading of each stream is shown; looking again at it is not."""

    def __init__(self, reader: Reader, *watchers: Watcher) -> None:
        self._reader = reader
        self._watchers = watchers
        self._seen: set[str] = set()

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        shown = not skip and stop is None and namespace not in self._seen
        self._seen.add(namespace)
        async for batch in self._reader.read(namespace, skip=skip, stop=stop, rows=rows):
            if shown:
                for watcher in self._watchers:
                    watcher.add(batch)
            yield batch

    async def fingerprint(self) -> str:
        return await self._reader.fingerprint()

    async def unfinished(self) -> list[str]:
        return await self._reader.unfinished()
