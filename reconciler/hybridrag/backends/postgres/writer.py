"""Bulk load into the tables that LightRAG created: COPY BINARY, checkpoint in the same transaction, index last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import asyncpg

from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.model.data import NAMESPACES, Batch, Slot
from hybridrag.model.plan import owner_of
from hybridrag.model.ports import Embedding, Encoded, SchemaMaker, Selection

from .client import connection, while_open
from .copy_binary import Encoder
from .endpoint import Endpoint
from .failures import FAILURES, explain
from .ledger import Ledger, Mark
from .rows import Shape
from .tables import index_name, table_name

LOCK_PATIENCE_S = 20.0
"""How long a dead predecessor's session may take to be noticed by the server (it checks every 2 s)."""
_BULK = """
SET synchronous_commit = off;
SET client_connection_check_interval = '2s';
SET statement_timeout = 0;
"""
_INDEX_MEMORY_MB = (64, 1024)


class PostgresWriter:
    """See `model.ports.Writer`. Lives inside one session that holds the workspace's advisory lock."""

    def __init__(
        self,
        opened: asyncpg.Connection,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        migration_id: str,
        fingerprint: str,
        create_schema: Callable[[], asyncio.Future[None]],
        replaces: str | None,
    ) -> None:
        self._opened = opened
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding
        self._migration_id = migration_id
        self._fingerprint = fingerprint
        self._create_schema = create_schema
        self._replaces = replaces
        self._ledger = Ledger(opened, workspace)
        self._encoders = {n.name: Encoder(Shape(n.name), workspace) for n in NAMESPACES}

    def _table(self, namespace: str) -> str:
        return table_name(namespace, self._embedding)

    async def prepare(self) -> dict[str, int]:
        """See `Writer.prepare`. An earlier part of ours for another state of the source is removed first."""
        await self._opened.execute("SET client_min_messages = warning")
        await self._ledger.create()
        mark = await self._ledger.mark()
        if mark and mark.state == "switched" and mark.migration_id != self._replaces:
            raise self._in_use("it is in use by an earlier migration that was completed")
        if mark and owner_of(mark.migration_id) != owner_of(self._migration_id):
            raise self._in_use("it holds the unfinished copy of another database")
        if mark and mark.migration_id != self._migration_id:
            await self._clear(mark)
            mark = None
        if mark is None:
            await self._create_schema()
            await self._complete_schema()
            await self._refuse_foreign_data()
            await self._begin()
        await self._opened.execute(_BULK)
        return await self._ledger.checkpoints()

    def _in_use(self, why: str) -> PlanRefused:
        return PlanRefused(
            f'workspace "{self._workspace}" in backend "{self._endpoint.name}" cannot be written: {why}',
            hint="give the database another workspace in the spec, or empty that one yourself",
        )

    async def _complete_schema(self) -> None:
        """Indexes that LightRAG makes only together with a table: a kill in between leaves them out for good."""
        for namespace in NAMESPACES:
            table = self._table(namespace.name)
            if namespace.slot is not Slot.VECTOR or await self._opened.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM {table})"
            ):
                continue
            for kind, columns in (("id", "id"), ("workspace_id", "workspace, id")):
                name = index_name(table, kind)
                await self._opened.execute(f'CREATE INDEX IF NOT EXISTS "{name}" ON {table} ({columns})')

    async def _refuse_foreign_data(self) -> None:
        for namespace in NAMESPACES:
            table = self._table(namespace.name)
            if await self._opened.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM {table} WHERE workspace = $1)", self._workspace
            ):
                raise self._in_use(f"{table} already holds rows of it that are not ours")

    async def _begin(self) -> None:
        """Note the migration and, where no neighbour needs them, drop the vector indexes; all or nothing."""
        async with self._opened.transaction():
            dropped: dict[str, str] = {}
            for namespace in NAMESPACES:
                table = self._table(namespace.name)
                if namespace.slot is not Slot.VECTOR or await self._opened.fetchval(
                    f"SELECT EXISTS (SELECT 1 FROM {table})"
                ):
                    continue
                rows = await self._opened.fetch(
                    "SELECT c.relname, pg_get_indexdef(i.indexrelid) AS definition "
                    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
                    "WHERE i.indrelid = $1::regclass AND a.amname IN ('hnsw', 'ivfflat')",
                    table,
                )
                for row in rows:
                    dropped[row["relname"]] = row["definition"]
                    await self._opened.execute(f'DROP INDEX "{row["relname"]}"')
            await self._ledger.begin(self._migration_id, self._fingerprint, dropped)

    async def _clear(self, mark: Mark) -> None:
        """Remove an earlier part of ours. Edges before nodes: the cascade of LightRAG's own drop takes hours."""
        async with self._opened.transaction():
            # First, and locking its row: a copy that is switched to at this moment must stay.
            if not await self._ledger.forget(mark.migration_id, kept=mark.migration_id == self._replaces):
                raise self._in_use("another run has switched to it meanwhile")
            for namespace in sorted(NAMESPACES, key=lambda item: item.name != "edges"):
                table = self._table(namespace.name)
                if await self._opened.fetchval("SELECT to_regclass($1)", table):
                    await self._opened.execute(f"DELETE FROM {table} WHERE workspace = $1", self._workspace)
            for definition in mark.indexes.values():
                await self._opened.execute(_if_absent(definition))

    def encode(self, batch: Batch) -> Encoded:
        """See `Writer.encode`. Chunk vectors repeat columns of their chunks, which only the server has."""
        if batch.namespace == "chunks":
            return Encoded(batch, None)
        return Encoded(batch, self._encoders[batch.namespace].encode(batch))

    async def write(self, encoded: Encoded) -> None:
        """See `Writer.write`."""
        batch, data = encoded.batch, encoded.data
        encoder = self._encoders[batch.namespace]
        try:
            async with self._opened.transaction():
                if data is None:
                    order = await chunk_order(
                        self._opened, self._table("text_chunks"), self._workspace, batch.keys
                    )
                    data = encoder.encode(batch, lambda key: order.get(key, (None, None)))
                table, columns = self._table(batch.namespace), encoder.columns
                await while_open(
                    self._opened,
                    self._opened.copy_to_table(table, source=once(data), columns=columns, format="binary"),
                )
                await self._ledger.checkpoint(batch.namespace, batch.position)
        except asyncpg.UniqueViolationError as error:
            raise BackendUnavailable(
                f"{batch.namespace} holds a record twice: {error.detail or 'the same id'}",
                hint="remove the duplicate from the source, then run hybridrag apply",
            ) from None
        except asyncpg.ForeignKeyViolationError as error:
            raise BackendUnavailable(
                f"an edge of the graph leads to a node that does not exist: {error.detail}",
                hint="add the node to the source or remove the edge, then run hybridrag apply",
            ) from None

    async def finish(self, report: Callable[[str], None]) -> None:
        """See `Writer.finish`."""
        mark = await self._ledger.mark()
        for name, definition in (mark.indexes if mark else {}).items():
            if not await self._opened.fetchval("SELECT to_regclass($1)", f'"{name}"'):
                report(f"building index {name}")
                await self._build(definition)
        for namespace in NAMESPACES:
            await self._opened.execute(f"ANALYZE {self._table(namespace.name)}")
        # A synchronous commit makes every earlier asynchronous one durable as well.
        await self._opened.execute("SET synchronous_commit = on")
        if not await self._ledger.advance(self._migration_id, "copied"):
            raise self._in_use("another run has taken it over meanwhile")

    async def _build(self, definition: str) -> None:
        table = definition.split(" ON ", 1)[1].split(" ", 1)[0]
        rows = await self._opened.fetchval(f"SELECT count(*) FROM {table}")
        low, high = _INDEX_MEMORY_MB
        # The graph is built in memory: vectors plus about 1.5 KB of links and headers each.
        memory = min(high, max(low, rows * (self._embedding.dim * 4 + 1536) // (1 << 20) + 16))
        for workers in (2, 0):
            try:
                # The table looks small to the server, because its vectors are stored out of line.
                await self._opened.execute(
                    f"SET maintenance_work_mem = '{memory}MB'; SET max_parallel_maintenance_workers = {workers}; "
                    "SET min_parallel_table_scan_size = 0"
                )
                await self._opened.execute(_if_absent(definition))
                return
            except (asyncpg.DiskFullError, asyncpg.OutOfMemoryError):
                # A container's small /dev/shm stops parallel builds; one process needs none of it.
                if workers == 0:
                    raise


def _if_absent(definition: str) -> str:
    return definition.replace("CREATE INDEX ", "CREATE INDEX IF NOT EXISTS ", 1)


async def chunk_order(
    opened: asyncpg.Connection, table: str, workspace: str, keys: list[str]
) -> dict[str, tuple[int | None, int | None]]:
    """(tokens, chunk_order_index) by chunk id, from the text chunks in `table`."""
    rows = await opened.fetch(
        f"SELECT id, tokens, chunk_order_index FROM {table} WHERE workspace = $1 AND id = ANY($2)",
        workspace,
        keys,
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


class PostgresWriterSession:
    """Async context manager: one connection, the workspace's advisory lock, one writer."""

    def __init__(
        self,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        migration_id: str,
        fingerprint: str,
        schema: SchemaMaker,
        selection: Selection,
        replaces: str | None = None,
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

    async def __aenter__(self) -> PostgresWriter:
        opened = await self._stack.enter_async_context(
            connection(self._endpoint, purpose="writer", read_only=False, patience_s=15)
        )
        try:
            deadline = time.monotonic() + LOCK_PATIENCE_S
            while not await Ledger(opened, self._workspace).lock():
                if time.monotonic() > deadline:
                    raise BackendUnavailable(
                        f'workspace "{self._workspace}" in backend "{self._endpoint.name}" is being written by another '
                        "session of hybridrag",
                        hint="wait for it to end, then run hybridrag apply",
                    )
                await asyncio.sleep(0.25)
        except BaseException:
            await self._stack.aclose()
            raise
        return PostgresWriter(
            opened,
            self._endpoint,
            self._workspace,
            self._embedding,
            self._migration_id,
            self._fingerprint,
            lambda: asyncio.ensure_future(self._schema.create(self._selection, self._embedding)),
            self._replaces,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        await self._stack.aclose()
        if isinstance(error, FAILURES):
            raise explain(error, self._endpoint) from error
