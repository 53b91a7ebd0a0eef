"""Bulk load into the collections that LightRAG created: upserts by primary key, checkpoint after each batch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from hybridrag.backends.kit.marks import Course, Occupied, course
from hybridrag.backends.kit.refusals import busy, cannot_be_written, workspace_in
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.model.data import Batch
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Encoded
from hybridrag.model.said import said
from hybridrag.model.selection import Embedding, SchemaMaker, Selection

from . import ledger
from .client import SLOW_TIMEOUT_S, Connection, Endpoint, connection
from .collections import collection_names
from .ledger import Ledger, WorkspaceMark
from .lock import Lock
from .observe import holding
from .rows import Refused, Shape

REQUEST_BYTES = 16 << 20
"""A server refuses messages above 64 MB; texts are counted at four bytes a character."""
INDEX_PATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class EncodedRows(Encoded):
    """A batch as the client takes it: groups of rows, one for each request."""

    requests: list[list[dict[str, Any]]]


class MilvusWriter:
    """See `model.ports.Writer`. Lives inside one session that holds the workspace's lock.

    A batch is written before its checkpoint. What was written without one is written again by its key, which
    changes nothing; therefore always upsert, never insert: the client repeats requests by itself as well.
    """

    def __init__(
        self,
        opened: Connection,
        lock: Lock,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        migration_id: str,
        fingerprint: str,
        create_schema: Callable[[], Awaitable[None]],
        replaces: str | None,
    ) -> None:
        self._opened = opened
        self._lock = lock
        self._endpoint = endpoint
        self._workspace = workspace
        self._names = collection_names(workspace, embedding)
        self._migration_id = migration_id
        self._fingerprint = fingerprint
        self._create_schema = create_schema
        self._replaces = replaces
        self._ledger = Ledger(opened, workspace)
        self._shapes = {namespace: Shape(namespace) for namespace in self._names}
        self._mark = WorkspaceMark(
            migration=migration_id, source_fingerprint=fingerprint, state=MarkState.COPYING
        )

    async def prepare(self) -> dict[str, int]:
        """See `Writer.prepare`. An earlier part of ours for another state of the source is removed first."""
        mark = await self._ledger.mark()
        way = None if mark is None else self._course(mark)
        if way is Course.CLEAR or (mark is None and self._replaces):
            await self._clear()
            mark = None
        if mark is None:
            # Before LightRAG looks: it would take over the rows of a collection without suffix.
            await self._refuse_foreign_data()
            await self._create_schema()
            await self._ledger.put(self._mark)
        else:
            self._mark = mark
        return dict(self._mark.records)

    def _course(self, mark: WorkspaceMark) -> Course:
        try:
            return course(mark, self._migration_id, self._fingerprint, self._replaces)
        except Occupied as occupied:
            raise self._in_use(str(occupied)) from None

    def _in_use(self, why: str) -> PlanRefused:
        return cannot_be_written(self._ledger.place, why)

    async def _refuse_foreign_data(self) -> None:
        existing = set(await self._opened.call("list_collections"))
        for name in self._names.values():
            if name in existing and await self._opened.count(name):
                raise self._in_use(f"{name} already holds records that are not ours")
        if others := await holding(self._opened, existing, self._workspace, self._names):
            raise self._in_use(f"{', '.join(others)} already holds vectors of it that are not ours")

    async def _clear(self) -> None:
        """Remove an earlier part of ours: the mark last, so that a kill in between leaves it ours."""
        await drop(self._opened, self._lock, self._names.values())
        await self._ledger.forget()

    def encode(self, batch: Batch) -> Encoded:
        """See `Writer.encode`."""
        try:
            return EncodedRows(batch, None, self._shapes[batch.namespace].requests(batch, REQUEST_BYTES))
        except Refused as error:
            raise PlanRefused(
                f"a record of {batch.namespace} cannot be written: {said(error)}",
                hint="hybridrag plan names the records that Milvus cannot hold",
            ) from None

    async def write(self, encoded: Encoded) -> None:
        """See `Writer.write`."""
        assert isinstance(encoded, EncodedRows)  # noqa: S101 - narrows the type for the checker
        batch = encoded.batch
        for rows in encoded.requests:
            self._lock.check()
            await self._opened.call("upsert", self._names[batch.namespace], rows)
        self._lock.check()
        self._mark = replace(self._mark, records={**self._mark.records, batch.namespace: batch.position})
        await self._ledger.put(self._mark)

    async def finish(self, report: Callable[[str], None]) -> None:
        """See `Writer.finish`. LightRAG made the indexes with the collections; the server builds them as it seals."""
        for name in self._names.values():
            await self._opened.call("flush", name, timeout=SLOW_TIMEOUT_S)
        for name in self._names.values():
            await self._indexed(name, report)
            await self._opened.call("load_collection", name, timeout=SLOW_TIMEOUT_S)
        self._lock.check()
        await self._ledger.advance(self._migration_id, MarkState.COPIED)

    async def _indexed(self, name: str, report: Callable[[str], None]) -> None:
        """Wait until the server has built the vector index of what was written."""
        deadline = time.monotonic() + INDEX_PATIENCE_S
        told = False
        while True:
            state = await self._opened.call("describe_index", name, "vector")
            if not int((state or {}).get("pending_index_rows") or 0):
                return
            if not told:
                report(f"building the index of {name}")
                told = True
            if time.monotonic() > deadline:
                raise BackendUnavailable(
                    f'backend "{self._endpoint.name}" has not finished the index of {name} within an hour',
                    hint="see the server's log; hybridrag apply goes on from here",
                )
            await asyncio.sleep(1)


async def drop(opened: Connection, lock: Lock, names: Iterable[str]) -> None:
    """Drop those of the collections that exist."""
    for name in names:
        if await opened.call("has_collection", name):
            lock.check()
            await opened.call("drop_collection", name)


@contextlib.asynccontextmanager
async def locked(endpoint: Endpoint, workspace: str) -> AsyncIterator[tuple[Connection, Lock]]:
    """A connection while the workspace's lock is held. Raises BackendUnavailable where another session holds it."""
    async with connection(endpoint, patience_s=15) as opened:
        await ledger.create(opened)
        # A connection of its own: it must be renewed while a long flush is waited for.
        async with connection(endpoint, patience_s=15) as beating:
            lock = Lock(beating, workspace)
            if not await lock.take():
                raise busy(workspace_in(workspace, endpoint.name))
            try:
                yield opened, lock
            finally:
                await lock.release()


class MilvusWriterSession:
    """Async context manager: one connection, the workspace's lock, one writer."""

    def __init__(
        self,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        migration_id: str,
        fingerprint: str,
        schema: SchemaMaker,
        selection: Selection,
        replaces: str | None,
    ) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding
        self._migration_id = migration_id
        self._fingerprint = fingerprint
        self._schema = schema
        self._selection = selection
        self._replaces = replaces
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> MilvusWriter:
        collection_names(
            self._workspace, self._embedding
        )  # a name that cannot be is refused before anything is written
        opened, lock = await self._stack.enter_async_context(locked(self._endpoint, self._workspace))
        return MilvusWriter(
            opened,
            lock,
            self._endpoint,
            self._workspace,
            self._embedding,
            self._migration_id,
            self._fingerprint,
            lambda: self._schema.create(self._selection, self._embedding),
            self._replaces,
        )

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
