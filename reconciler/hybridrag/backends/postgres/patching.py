"""Single records of a finished copy: asked for by key, put and removed. For what was written during the copy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from hybridrag.backends.kit.refusals import busy, workspace_in
from hybridrag.model.data import Batch, Slot
from hybridrag.model.marks import MarkState
from hybridrag.model.selection import Embedding

from . import carried, keeping
from .building import Budget
from .catalog import physical
from .client import connection
from .copy_binary import Decoder, Encoder, RowSplitter
from .endpoint import Endpoint
from .failures import FAILURES, explain
from .graphs import STREAMS, Graph, RowDecoder, upsert
from .indexes import column_type
from .ledger import Ledger
from .restoring import complete
from .rows import Shape
from .spec import VectorIndexSpec
from .tables import TABLES, table_name
from .writer import LOCK_PATIENCE_S, chunk_order, take

KEYS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresMending:
    """See `model.ports.Mending`."""

    endpoint: Endpoint
    workspace: str
    embedding: Embedding
    slots: frozenset[Slot]
    index: VectorIndexSpec
    graph: Graph
    budget: Budget
    create_schema: Callable[[], Awaitable[None]]

    def table(self, namespace: str) -> str:
        return table_name(namespace, self.embedding)

    def shape(self, namespace: str) -> Shape:
        return Shape(namespace, half=column_type(self.index) == "halfvec" and TABLES[namespace].vector)

    async def keys(self, namespace: str) -> AsyncIterator[list[str]]:
        async with (
            connection(self.endpoint, purpose="verify", read_only=True, patience_s=10) as opened,
            opened.transaction(readonly=True),
        ):
            group: list[str] = []
            async for key in self._all_keys(opened, namespace):
                group.append(key)
                if len(group) >= KEYS_AT_ONCE:
                    yield group
                    group = []
            if group:
                yield group

    async def _all_keys(self, opened: asyncpg.Connection, namespace: str) -> AsyncIterator[str]:
        if namespace in STREAMS:
            async for key in self.graph.keys(opened, namespace, self.workspace, KEYS_AT_ONCE):
                yield key
            return
        if not await physical(opened, [self.table(namespace)]) and TABLES[namespace].ours:
            return
        query = f"SELECT id FROM {self.table(namespace)} WHERE workspace = $1"
        async for row in opened.cursor(query, self.workspace, prefetch=KEYS_AT_ONCE):
            yield row[0]

    def _by_key(
        self, namespace: str, keys: Sequence[str], *, beside: bool
    ) -> tuple[RowDecoder, str, tuple[list[str], ...]]:
        """(decoder, query, its arguments from $2 on) for the rows of some keys. `beside`: with what is kept beside them."""
        if namespace in STREAMS:
            return self.graph.decoder(namespace), *self.graph.chosen(namespace, self.workspace, keys)
        decoder = Decoder(self.shape(namespace), carried=beside)
        columns = ", ".join(
            "content_vector::vector" if name == "content_vector" else name for name in decoder.select
        )
        query = f"SELECT {columns} FROM {self.table(namespace)} WHERE workspace = $1 AND id = ANY($2::text[])"
        query = carried.with_carried(f"{query} OFFSET 0", namespace) if beside else query
        return decoder, query, (list(keys),)

    async def fetch(self, namespace: str, keys: Sequence[str]) -> Batch:
        splitter = RowSplitter()
        rows: list[list[bytes | None]] = []

        async def sink(data: bytes) -> None:
            rows.extend(row for row, _ in splitter.feed(data))

        async with connection(self.endpoint, purpose="verify", read_only=True, patience_s=10) as opened:
            beside = namespace not in STREAMS and await carried.carries(opened, self.workspace, namespace)
            decoder, query, chosen = self._by_key(namespace, keys, beside=beside)
            if TABLES[namespace].ours and not await physical(opened, [self.table(namespace)]):
                return Batch(namespace=namespace, position=0)
            await opened.copy_from_query(query, self.workspace, *chosen, output=sink, format="binary")
        if not rows:
            nothing = (
                np.empty((0, self.embedding.dim), dtype=np.float32) if TABLES[namespace].vector else None
            )
            return Batch(namespace=namespace, position=0, vectors=nothing)
        return decoder.decode(rows, len(rows))

    async def reclaim(self, migration_id: str) -> None:
        await keeping.reclaim(
            self.endpoint, self.workspace, self.slots, migration_id, self.create_schema, self.graph
        )

    def open(self, migration_id: str) -> PostgresPatcherSession:
        return PostgresPatcherSession(self, migration_id)

    def restoring(self) -> PostgresPatcherSession:
        return PostgresPatcherSession(self, None)

    async def complete(self, report: Callable[[str], None]) -> None:
        await complete(
            self.endpoint,
            self.workspace,
            self.embedding,
            self.slots,
            self.index,
            self.graph,
            self.budget,
            self.create_schema,
            report,
        )


class PostgresPatcher:
    """See `model.ports.Patcher`."""

    def __init__(self, opened: asyncpg.Connection, mending: PostgresMending) -> None:
        self._opened = opened
        self._mending = mending

    async def put(self, batch: Batch) -> None:
        name, workspace = batch.namespace, self._mending.workspace
        if name in STREAMS:
            async with self._opened.transaction():
                await self._mending.graph.put(self._opened, workspace, batch)
            return
        encoder = Encoder(self._mending.shape(name), workspace)
        data = encoder.encode(batch)
        if name == "chunks" and Slot.KV in self._mending.slots:
            known = await chunk_order(self._opened, self._mending.table("text_chunks"), workspace, batch.keys)
            data = encoder.encode(batch, lambda key: known.get(key, (None, None)))
        elif name == "chunks":
            data = encoder.encode(batch, lambda key: (None, None))
        async with self._opened.transaction():
            await upsert(self._opened, self._mending.table(name), encoder.columns, ["workspace", "id"], data)
            await carried.replace(self._opened, workspace, name, batch.keys, encoder.beside(batch))
            if name == "text_chunks" and Slot.VECTOR in self._mending.slots:
                await self._follow_chunks(batch.keys)

    async def _follow_chunks(self, keys: Sequence[str]) -> None:
        """Let chunk vectors repeat what changed in their chunks; it is in no vector's record, so nothing else would."""
        chunks, vectors = map(self._mending.table, ("text_chunks", "chunks"))
        await self._opened.execute(
            f"UPDATE {vectors} v SET tokens = c.tokens, chunk_order_index = c.chunk_order_index FROM {chunks} c "
            "WHERE v.workspace = $1 AND c.workspace = $1 AND v.id = c.id AND c.id = ANY($2::text[]) "
            "AND num_nonnulls(v.tokens, v.chunk_order_index) > 0 "
            "AND (v.tokens, v.chunk_order_index) IS DISTINCT FROM (c.tokens, c.chunk_order_index)",
            self._mending.workspace,
            list(keys),
        )

    async def remove(self, namespace: str, keys: Sequence[str]) -> None:
        if namespace in STREAMS:
            await self._mending.graph.remove(self._opened, namespace, self._mending.workspace, keys)
            return
        workspace, table = self._mending.workspace, self._mending.table(namespace)
        async with self._opened.transaction():
            await self._opened.execute(
                f"DELETE FROM {table} WHERE workspace = $1 AND id = ANY($2::text[])", workspace, list(keys)
            )
            await carried.remove(self._opened, workspace, namespace, keys)


class PostgresPatcherSession:
    """Async context manager: one connection, the locks of the workspace's slots, the mark taken back, one patcher.

    Without a migration no mark is touched.
    """

    def __init__(self, mending: PostgresMending, migration_id: str | None) -> None:
        self._mending = mending
        self._migration_id = migration_id
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> PostgresPatcher:
        mending = self._mending
        opened = await self._stack.enter_async_context(
            connection(mending.endpoint, purpose="writer", read_only=False, patience_s=15)
        )
        ledger = Ledger(opened, mending.workspace, mending.slots, mending.graph)
        place = workspace_in(mending.workspace, mending.endpoint.name)
        try:
            await take(ledger.lock, LOCK_PATIENCE_S, busy(place))
            await ledger.create()  # one that an earlier version made has fewer tables
            if self._migration_id is None:
                return PostgresPatcher(opened, mending)
            # What is changed from now on is unverified, whoever looks at it after a kill.
            await ledger.check_patchable(place, self._migration_id)
            await ledger.advance(place, self._migration_id, MarkState.COPIED)
        except BaseException:
            await self._stack.aclose()
            raise
        return PostgresPatcher(opened, mending)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        await self._stack.aclose()
        if isinstance(error, FAILURES):
            raise explain(error, self._mending.endpoint) from error
