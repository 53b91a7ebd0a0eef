"""One LightRAG database (a workspace) in Postgres: observed, read and written here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import asyncpg

from hybridrag.errors import PlanRefused
from hybridrag.model.data import ALL_SLOTS, NAMESPACES, Batch, Slot
from hybridrag.model.facts import Facts, digest_of
from hybridrag.model.ports import Embedding, Examination, Glance, SchemaMaker, Selection, Store

from . import patching
from .client import connection
from .copy_binary import Decoder, RowSplitter
from .endpoint import Endpoint
from .glance import glance_workspaces
from .ledger import Ledger
from .observe import observe_store
from .rows import Shape
from .tables import table_name
from .writer import PostgresWriterSession

GROUP_BYTES = 4 << 20


class PostgresReader:
    """Reads a workspace back, one statement's snapshot for each namespace, on read-only sessions."""

    def __init__(self, endpoint: Endpoint, workspace: str, embedding: Embedding) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding

    async def fingerprint(self) -> str:
        return digest_of([self._endpoint.address, self._endpoint.database, self._workspace])

    async def unfinished(self) -> list[str]:
        return []

    async def read(self, namespace: str, *, skip: int = 0, rows: int = 1000) -> AsyncIterator[Batch]:
        """Streamed by COPY TO, so that memory is bounded by bytes whatever the size of a row."""
        decoder = Decoder(Shape(namespace))
        table = table_name(namespace, self._embedding)
        query = f"SELECT {', '.join(decoder.select)} FROM {table} WHERE workspace = $1"
        if skip:
            query += f' ORDER BY {decoder.select[0]} COLLATE "C" OFFSET {int(skip)}'
        async with connection(self._endpoint, purpose="read", read_only=True, patience_s=10) as opened:
            ready: asyncio.Queue[tuple[list[list[bytes | None]], int] | None] = asyncio.Queue(maxsize=1)
            copying = asyncio.create_task(_copy_out(opened, query, self._workspace, rows, ready))
            position = skip
            try:
                while (found := await ready.get()) is not None:
                    position += len(found[0])
                    batch = decoder.decode(found[0], position)
                    batch.size = found[1]
                    yield batch
                await copying
            finally:
                copying.cancel()
                await asyncio.gather(copying, return_exceptions=True)


async def _copy_out(
    opened: asyncpg.Connection,
    query: str,
    workspace: str,
    rows: int,
    ready: asyncio.Queue[tuple[list[list[bytes | None]], int] | None],
) -> None:
    """Put groups of rows into the queue, each bounded by number and bytes; None at the end, and after an error."""
    splitter = RowSplitter()
    group: list[list[bytes | None]] = []
    size = 0

    async def sink(data: bytes) -> None:
        nonlocal group, size
        for row, length in splitter.feed(data):
            group.append(row)
            size += length
            if len(group) >= rows or size >= GROUP_BYTES:
                await ready.put((group, size))
                group, size = [], 0

    try:
        await opened.copy_from_query(query, workspace, output=sink, format="binary")
        if group:
            await ready.put((group, size))
    except asyncio.CancelledError:
        raise  # the reader is gone: nobody would make room for an end mark
    except BaseException:
        await ready.put(None)
        raise
    await ready.put(None)


class PostgresStore:
    """See `model.ports.Store`."""

    def __init__(
        self,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        schema: SchemaMaker,
        selection: Callable[[str], Selection],
        slots: frozenset[Slot] = ALL_SLOTS,
    ) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding
        self._schema = schema
        self._selection = selection
        self._slots = slots
        self._shapes = {namespace.name: Shape(namespace.name) for namespace in NAMESPACES}

    @property
    def backend(self) -> str:
        return self._endpoint.name

    @property
    def slots(self) -> frozenset[Slot]:
        return self._slots

    async def observe(self) -> tuple[Facts, Facts]:
        return await observe_store(self._endpoint, self._workspace, self._embedding)

    async def glance(self, others: Sequence[Store] = ()) -> list[Glance]:
        mine = [self, *(other for other in others if isinstance(other, PostgresStore))]
        places = [(store._workspace, store._embedding) for store in mine]
        return await glance_workspaces(self._endpoint, places)

    def selection(self) -> Selection:
        return self._selection(self._workspace)

    def reader(self) -> PostgresReader:
        return PostgresReader(self._endpoint, self._workspace, self._embedding)

    def examine(self, batch: Batch, into: Examination) -> Batch:
        return self._shapes[batch.namespace].examine(batch, into)

    async def related(self) -> list[str]:
        """Columns that no stream carries: a chunk vector repeats tokens and order of its chunk."""
        chunks, vectors = (table_name(name, self._embedding) for name in ("text_chunks", "chunks"))
        async with connection(self._endpoint, purpose="verify", read_only=True, patience_s=10) as opened:
            apart = await opened.fetchval(
                f"SELECT count(*) FROM {vectors} v JOIN {chunks} c USING (workspace, id) WHERE v.workspace = $1 "
                "AND (v.tokens, v.chunk_order_index) IS DISTINCT FROM (c.tokens, c.chunk_order_index)",
                self._workspace,
            )
        return [f"{apart:,} chunk vectors disagree with their chunk in tokens or order"] if apart else []

    def keys(self, namespace: str) -> AsyncIterator[list[str]]:
        return patching.keys_of(self._endpoint, self._workspace, self._embedding, namespace)

    async def fetch(self, namespace: str, keys: Sequence[str]) -> Batch:
        return await patching.fetch(self._endpoint, self._workspace, self._embedding, namespace, keys)

    def open_patcher(self, migration_id: str) -> patching.PostgresPatcherSession:
        return patching.PostgresPatcherSession(self._endpoint, self._workspace, self._embedding, migration_id)

    def open_writer(
        self, migration_id: str, fingerprint: str, *, replaces: str | None = None
    ) -> PostgresWriterSession:
        return PostgresWriterSession(
            self._endpoint,
            self._workspace,
            self._embedding,
            migration_id,
            fingerprint,
            self._schema,
            self.selection(),
            replaces,
        )

    async def mark(self, migration_id: str, state: str) -> None:
        async with connection(self._endpoint, purpose="mark", read_only=False, patience_s=10) as opened:
            if not await Ledger(opened, self._workspace).advance(migration_id, state):
                raise PlanRefused(
                    f'workspace "{self._workspace}" in backend "{self.backend}" was taken over by another migration '
                    "meanwhile; nothing was switched",
                    hint="give the database another workspace in the spec, then run hybridrag plan",
                )

    async def close(self) -> None:
        """Connections live only as long as the call that needs them."""
