"""Single records of a finished copy: asked for by id, put and removed. For what was written during the copy.

There are no transactions: a record is put by its id and removed by its id, so repeating either changes nothing, and until
the mark says "verified" again, whoever comes after a kill compares everything.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hybridrag.backends.kit.marks import RECLAIMED, check_patchable, check_reclaimable
from hybridrag.errors import PlanRefused
from hybridrag.model.data import Batch
from hybridrag.model.marks import MarkState
from hybridrag.model.said import said
from hybridrag.model.selection import Embedding

from .client import SLOW_TIMEOUT_S, Connection, Endpoint, connection, quoted
from .collections import collection_names
from .ledger import Ledger, WorkspaceMark
from .lock import Lock
from .reader import PAGE_BYTES, keys_of
from .rows import Refused, Shape, batch_of
from .writer import REQUEST_BYTES, locked

IDS = 1000
"""Ids named in one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MilvusMending:
    """See `model.ports.Mending`."""

    endpoint: Endpoint
    workspace: str
    embedding: Embedding
    create_schema: Callable[[], Awaitable[None]]

    @property
    def names(self) -> dict[str, str]:
        return collection_names(self.workspace, self.embedding)

    async def keys(self, namespace: str) -> AsyncIterator[list[str]]:
        async with connection(self.endpoint, patience_s=10) as opened:
            name = await self._loaded(opened, namespace)
            async for keys in keys_of(opened, name):
                yield keys

    async def fetch(self, namespace: str, keys: Sequence[str]) -> Batch:
        found = []
        async with connection(self.endpoint, patience_s=10) as opened:
            name = await self._loaded(opened, namespace)
            for chunk in self._chunks(keys):
                where = f"id in [{', '.join(quoted(key) for key in chunk)}]"
                found += await opened.query(name, where, ["*"], len(chunk))
        if not found:
            nothing = np.empty((0, self.embedding.dim), dtype=np.float32)
            return Batch(namespace=namespace, position=0, vectors=nothing)
        return batch_of(namespace, found, len(found))

    async def _loaded(self, opened: Connection, namespace: str) -> str:
        name = self.names[namespace]
        if not await opened.loaded(name):
            await opened.call("load_collection", name, timeout=SLOW_TIMEOUT_S)
        return name

    def _chunks(self, keys: Sequence[str]) -> list[Sequence[str]]:
        """As many as an answer may hold; a text beside its vector takes a few kilobytes."""
        step = max(1, min(IDS, PAGE_BYTES // (self.embedding.dim * 4 + 4096)))
        return [keys[start : start + step] for start in range(0, len(keys), step)]

    async def reclaim(self, migration_id: str) -> None:
        """See `Mending.reclaim`. LightRAG brings its collections up to date first: it may be a newer one than made them."""
        async with locked(self.endpoint, self.workspace) as (opened, lock):
            ledger = Ledger(opened, self.workspace)
            if (mark := await ledger.mark()) is not None:
                check_reclaimable(mark, migration_id, ledger.place)
            await self.create_schema()
            lock.check()
            taken = WorkspaceMark(
                migration=migration_id, source_fingerprint=RECLAIMED, state=MarkState.COPIED
            )
            await ledger.put(taken)

    def open(self, migration_id: str) -> MilvusPatcherSession:
        return MilvusPatcherSession(self, migration_id)

    def restoring(self) -> MilvusPatcherSession:
        return MilvusPatcherSession(self, None)

    async def complete(self, report: Callable[[str], None]) -> None:
        """See `Mending.complete`. LightRAG makes a collection together with its index."""
        async with connection(self.endpoint, patience_s=10) as opened:
            existing = set(await opened.call("list_collections"))
        if missing := sorted(set(self.names.values()) - existing):
            report(f"creating {', '.join(missing)}")
            await self.create_schema()


class MilvusPatcher:
    """See `model.ports.Patcher`."""

    def __init__(self, opened: Connection, lock: Lock, mending: MilvusMending) -> None:
        self._opened = opened
        self._lock = lock
        self._mending = mending

    async def put(self, batch: Batch) -> None:
        try:
            requests = Shape(batch.namespace).requests(batch, REQUEST_BYTES)
        except Refused as error:
            raise PlanRefused(
                f"a record of {batch.namespace} cannot be written: {said(error)}",
                hint="hybridrag plan names the records that Milvus cannot hold",
            ) from None
        for rows in requests:
            self._lock.check()
            await self._opened.call("upsert", self._mending.names[batch.namespace], rows)

    async def remove(self, namespace: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), IDS):
            self._lock.check()
            await self._opened.call(
                "delete", self._mending.names[namespace], ids=list(keys[start : start + IDS])
            )


class MilvusPatcherSession:
    """Async context manager: one connection, the workspace's lock, the mark taken back, one patcher.

    Without a migration no mark is touched.
    """

    def __init__(self, mending: MilvusMending, migration_id: str | None) -> None:
        self._mending = mending
        self._migration_id = migration_id
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> MilvusPatcher:
        mending = self._mending
        opened, lock = await self._stack.enter_async_context(locked(mending.endpoint, mending.workspace))
        if self._migration_id is None:
            return MilvusPatcher(opened, lock, mending)
        try:
            # What is changed from now on is unverified, whoever looks at it after a kill.
            ledger = Ledger(opened, mending.workspace)
            check_patchable(await ledger.mark(), self._migration_id, ledger.place)
            await ledger.advance(self._migration_id, MarkState.COPIED)
        except BaseException:
            await self._stack.aclose()
            raise
        return MilvusPatcher(opened, lock, mending)

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
