"""From files to documents: looks the source through when something happened, and hands out what is new."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from hybridrag.errors import BackendUnavailable
from hybridrag.model.watching import Document, Source, Watched

from .backlog import Backlog
from .events import FileEvents
from .sources import Stamp, Unusable, folder_of, listing, read

LOG = logging.getLogger("hybridrag.watch")
GROUP = (4, 40_000)
"""Documents and characters that are handed over together: so many stand between a request and its pause."""
LOOK_S = 0.3
SHARE = 10
"""A look that took a while is not begun again before ten times as long."""
EXAMINE = 50


class Intake:
    """The source of one database. What the database knows is told to `backlog`."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.backlog = Backlog(retry_s=max(60.0, watched.interval_s))
        self._events = FileEvents(folder_of(watched.source), recursive=watched.source.recursive)
        self._looked = (0.0, 0.0)
        self._problem: str | None = None
        self._struck: set[str] = set()

    @property
    def _source(self) -> Source:
        return self.watched.source

    async def look(self) -> None:
        """List the files where something happened, some are still being written, or the interval is over.

        Raises BackendUnavailable where the folder cannot be read.
        """
        self._events.follow()
        at, took = self._looked
        since = time.monotonic() - at
        happened = self._events.changed.is_set() or self.backlog.unsettled
        if since < max(LOOK_S, SHARE * took) or not (happened or since >= self.watched.interval_s):
            return
        self._events.changed.clear()
        begun = time.monotonic()
        try:
            found = await asyncio.to_thread(listing, self._source)
        except OSError as error:
            self._events.changed.set()
            raise BackendUnavailable(
                f'the source folder "{folder_of(self._source)}" cannot be read: {error.strerror}'
            ) from None
        self._looked = time.monotonic(), time.monotonic() - begun
        problem = None if found is not None else f'there is no folder "{folder_of(self._source)}"'
        if problem and problem != self._problem:
            LOG.warning("%s; it is waited for", problem, extra={"event": "no_source"})
        self._problem = problem
        self.backlog.update(found or {})

    @property
    def problem(self) -> str | None:
        """Why there is nothing to be looked through."""
        return self._problem

    async def examine(self) -> bool:
        """Look into some files nobody looked into yet; False where there are none, or they are still being written."""
        waiting = self.backlog.unexamined(EXAMINE)
        if not waiting:
            return False
        found = await asyncio.to_thread(lambda: [(*each, read(self._source, *each)) for each in waiting])
        for name, stamp, content in found:
            if problem := self.backlog.examined(name, stamp, content):
                LOG.warning(
                    '"%s" cannot be ingested: %s; it is tried again when it changes',
                    name, problem, extra={"event": "unusable", "name_of": name, "reason": problem},
                )  # fmt: skip
        return True

    async def take(self) -> list[Document]:
        """The next group; empty where nothing is to be ingested now."""
        pending = self.backlog.pending()[: GROUP[0]]
        # One that ended LightRAG's process before goes alone, so that it does not take others with it.
        if any(name in self._struck for name, _ in pending):
            pending = pending[:1]
        return await asyncio.to_thread(self._read, pending) if pending else []

    def _read(self, pending: Sequence[tuple[str, Stamp]]) -> list[Document]:
        found: list[Document] = []
        for name, stamp in pending:
            if found and sum(len(document.text) for document in found) >= GROUP[1]:
                break
            content = read(self._source, name, stamp)
            if content is None or isinstance(content, Unusable):
                self.backlog.look_again(name)
            else:
                found.append(content)
        return found

    def alone(self, documents: Sequence[Document]) -> None:
        """The process was lost with these in hand."""
        self._struck |= {document.name for document in documents}

    def together(self, documents: Sequence[Document]) -> None:
        self._struck -= {document.name for document in documents}

    async def stop(self) -> None:
        await self._events.stop()
