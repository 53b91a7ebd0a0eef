"""Bulk load into the tables that LightRAG created: COPY BINARY, checkpoint in the same transaction, index last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import asyncpg

from hybridrag.backends.kit.marks import Course, Occupied, course
from hybridrag.backends.kit.refusals import MEANWHILE, busy, cannot_be_written, workspace_in
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.failpoints import Point, failpoint
from hybridrag.model.data import Batch, Range, Slot, streams_of
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Encoded
from hybridrag.model.selection import Embedding, SchemaMaker, Selection

from . import carried
from .building import Budget, build, if_absent
from .catalog import physical
from .client import connection, while_open
from .copy_binary import Encoder
from .endpoint import Endpoint
from .failures import FAILURES, explain
from .graphs import STREAMS, Graph, RowEncoder, mine, once, relation
from .indexes import KINDS, column_type, definition, name_of
from .ledger import Ledger, SlotMark
from .rows import Shape
from .spec import VectorIndexSpec
from .tables import TABLES, index_name

LOCK_PATIENCE_S = 20.0
"""How long a dead predecessor's session may take to be noticed by the server (it checks every 2 s)."""
SCHEMA_PATIENCE_S = 200.0
"""Longer than LightRAG may take to create its tables."""
_BULK = """
SET synchronous_commit = off;
SET client_connection_check_interval = '2s';
SET statement_timeout = 0;
"""
_VECTOR_INDEXES = """
SELECT c.relname, pg_get_indexdef(i.indexrelid) AS definition
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = $1::regclass AND a.amname IN ('hnsw', 'ivfflat')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one writer is to do: which slots of which workspace, for which migration."""

    endpoint: Endpoint
    workspace: str
    embedding: Embedding
    slots: frozenset[Slot]
    index: VectorIndexSpec
    graph: Graph
    budget: Budget
    migration_id: str
    fingerprint: str
    replaces: str | None


class PostgresWriter:
    """See `model.ports.Writer`. Lives inside one session that holds the advisory locks of the workspace's slots."""

    def __init__(
        self,
        opened: asyncpg.Connection,
        task: Task,
        create_schema: Callable[[], asyncio.Future[None]],
        ranges: dict[str, list[Range]] | None = None,
    ) -> None:
        self._opened = opened
        self._task = task
        self._workspace = task.workspace
        self._create_schema = create_schema
        self._ledger = Ledger(opened, task.workspace, task.slots, task.graph)
        self._streams = streams_of(task.slots)
        self._ranges: dict[str, list[Range]] = {} if ranges is None else ranges
        """By stream, in order; shared by all that write beside one another, each of which moves its own on."""
        half = column_type(task.index) == "halfvec"
        self._encoders = {
            name: Encoder(Shape(name, half=half and TABLES[name].vector), task.workspace)
            for name in self._streams
            if name not in STREAMS
        }
        self._graph: dict[str, RowEncoder] = {
            name: task.graph.encoder(name, task.workspace) for name in self._streams if name in STREAMS
        }

    def _table(self, namespace: str) -> str:
        return relation(namespace, self._workspace, self._task.embedding, self._task.graph)

    @property
    def _vector_tables(self) -> list[str]:
        return [self._table(name) for name in self._streams if TABLES[name].vector]

    async def _holds_rows(self, table: str) -> bool:
        return bool(await self._opened.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table})"))

    async def prepare(self) -> dict[str, int]:
        """See `Writer.prepare`. An earlier part of ours for another state of the source is removed first."""
        await self._opened.execute("SET client_min_messages = warning")
        await self._ledger.create()
        marks = await self._ledger.marks()
        # Slots that were left one after the other bear the marks of several migrations.
        courses = {self._course(mark) for mark in marks.values()}
        goes_on = set(marks) == self._task.slots and courses == {Course.CONTINUE}
        if (marks and not goes_on) or (not marks and self._task.replaces):
            await self._clear(marks)
            marks = {}
        if not marks:
            await self._begin()
        await self._opened.execute(_BULK)
        await self._know_ranges()
        done = {name: sum(part.done - part.first for part in parts) for name, parts in self._ranges.items()}
        return {name: count for name, count in done.items() if count}

    async def divide(self, ranges: Sequence[Range]) -> list[Range]:
        """See `ParallelWriter.divide`."""
        await self._ledger.fix(ranges)
        await self._know_ranges()
        return [part for parts in self._ranges.values() for part in parts]

    async def _know_ranges(self) -> None:
        self._ranges.clear()
        for part in await self._ledger.ranges():
            self._ranges.setdefault(part.namespace, []).append(part)

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[PostgresWriter]:
        """See `ParallelWriter.beside`; a session of its own, whose locks a successor waits for."""
        async with connection(
            self._task.endpoint, purpose="writer", read_only=False, patience_s=15
        ) as opened:
            await opened.execute(_BULK)
            other = PostgresWriter(opened, self._task, self._create_schema, self._ranges)
            await other._ledger.lock_lane()
            yield other

    def _course(self, mark: SlotMark) -> Course:
        task = self._task
        try:
            return course(mark, task.migration_id, task.fingerprint, task.replaces)
        except Occupied as occupied:
            raise self._in_use(str(occupied)) from None

    @property
    def _place(self) -> str:
        return workspace_in(self._workspace, self._task.endpoint.name)

    def _in_use(self, why: str) -> PlanRefused:
        return cannot_be_written(self._place, why)

    async def _refuse_another_index(self) -> None:
        """LightRAG drops another type's index on sight, for every workspace in the table."""
        wanted = self._task.index
        for table in self._vector_tables if wanted.type != "none" else ():
            if await self._opened.fetchval("SELECT to_regclass($1)", table) is None:
                continue
            names = {row["relname"] for row in await self._opened.fetch(_VECTOR_INDEXES, table)}
            there = [kind for kind in KINDS if index_name(table, f"{kind}_cosine") in names]
            if there and wanted.type not in there and await self._holds_rows(table):
                raise self._another(table, f"an index of type {there[0]}", there[0])

    async def _refuse_another_column(self) -> None:
        there = await physical(self._opened, self._vector_tables)
        for table, found in there.items():
            if found.vector_type != column_type(self._task.index):
                way_out = "hnsw_halfvec" if found.vector_type == "halfvec" else "hnsw"
                raise self._another(table, f"a column of type {found.vector_type}", way_out)

    def _another(self, table: str, what: str, way_out: str) -> PlanRefused:
        name = self._task.endpoint.name
        return PlanRefused(
            f'backend "{name}": table "{table}" has {what}, and vector_index.type is {self._task.index.type}; LightRAG '
            "would rebuild it for every workspace in the table",
            hint=f"backends.{name}.vector_index.type: {way_out}, or another Postgres database for this one",
        )

    async def _complete_schema(self) -> None:
        """Indexes that LightRAG makes only together with a table: a kill in between leaves them out for good."""
        for table in self._vector_tables:
            if await self._holds_rows(table):
                continue
            for kind, columns in (("id", "id"), ("workspace_id", "workspace, id")):
                name = index_name(table, kind)
                await self._opened.execute(f'CREATE INDEX IF NOT EXISTS "{name}" ON {table} ({columns})')

    async def _refuse_foreign_data(self) -> None:
        for name in self._streams:
            table, condition = self._table(name), mine(name, self._task.graph)
            if await self._opened.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {condition})", self._workspace
            ):
                raise self._in_use(f"{table} already holds rows of it that are not ours")

    async def _begin(self) -> None:
        """Have the tables made and note the migration; one writer at a time, as LightRAG's start bears no other."""
        schema = f'the schema of backend "{self._task.endpoint.name}"'
        await take(self._ledger.lock_schema, SCHEMA_PATIENCE_S, busy(schema))
        await self._refuse_another_index()
        await self._create_schema()
        await self._refuse_another_column()
        await self._complete_schema()
        await self._refuse_foreign_data()
        await self._note()
        await self._ledger.unlock_schema()

    async def _note(self) -> None:
        """Note the migration and, where no neighbour needs them, drop the vector indexes; all or nothing."""
        async with self._opened.transaction():
            dropped: dict[str, str] = {}
            for table in self._vector_tables:
                if await self._holds_rows(table):
                    continue
                for row in await self._opened.fetch(_VECTOR_INDEXES, table):
                    dropped[row["relname"]] = row["definition"]
                    await self._opened.execute(f'DROP INDEX "{row["relname"]}"')
            # What is left of records that LightRAG deleted would be taken for these.
            await carried.forget(self._opened, self._workspace, self._streams)
            await self._ledger.begin(self._task.migration_id, self._task.fingerprint, dropped)

    async def _clear(self, marks: Mapping[Slot, SlotMark]) -> None:
        """Remove an earlier part of ours. Edges before nodes: the cascade of LightRAG's own drop takes hours."""
        async with self._opened.transaction():
            # First, and locking its rows: a copy that is switched to at this moment must stay.
            if not await self._ledger.forget(marks, kept=self._task.replaces):
                raise self._in_use("another run has switched to it meanwhile")
            # Kept rows that no migration of ours wrote have no mark.
            cleared = streams_of(marks or self._task.slots)
            for namespace in sorted(cleared, key=lambda name: name != "edges"):
                table = self._table(namespace)
                if await self._opened.fetchval("SELECT to_regclass($1)", table):
                    condition = mine(namespace, self._task.graph)
                    await self._opened.execute(f"DELETE FROM {table} WHERE {condition}", self._workspace)
            await carried.forget(self._opened, self._workspace, cleared)
            for mark in marks.values():
                for statement in mark.indexes.values():
                    await self._opened.execute(if_absent(statement))

    def encode(self, batch: Batch) -> Encoded:
        """See `Writer.encode`. Chunk vectors repeat columns of their chunks, which only the server has."""
        if batch.namespace == "chunks":
            return Encoded(batch, None, beside=self._encoders["chunks"].beside(batch))
        if batch.namespace in STREAMS:
            return Encoded(batch, self._graph[batch.namespace].encode(batch))
        encoder = self._encoders[batch.namespace]
        return Encoded(batch, encoder.encode(batch), beside=encoder.beside(batch))

    async def write(self, encoded: Encoded) -> None:
        """See `Writer.write`."""
        batch, data = encoded.batch, encoded.data
        try:
            async with self._opened.transaction():
                if batch.namespace in STREAMS and data is not None:
                    await self._task.graph.load(
                        self._opened, batch.namespace, self._workspace, data, len(batch)
                    )
                    await self._checkpoint(batch)
                    return
                encoder = self._encoders[batch.namespace]
                if data is None:
                    order = await chunk_order(
                        self._opened, self._table("text_chunks"), self._workspace, batch.keys
                    )
                    data = encoder.encode(batch, lambda key: order.get(key, (None, None)))
                schema, _, table = self._table(batch.namespace).rpartition(".")
                loading = self._opened.copy_to_table(
                    table,
                    source=once(data),
                    columns=encoder.columns,
                    format="binary",
                    schema_name=schema or None,
                )
                await while_open(self._opened, loading)
                await carried.load(self._opened, encoded.beside)
                await self._checkpoint(batch)
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

    async def _checkpoint(self, batch: Batch) -> None:
        failpoint(Point.BATCH_SENT)
        if batch.namespace not in self._ranges:
            await self.divide([Range(namespace=batch.namespace)])
        parts = self._ranges[batch.namespace]
        index = max((place for place, part in enumerate(parts) if part.first < batch.position), default=0)
        if not await self._ledger.checkpoint(parts[index], batch.position):
            raise self._in_use(MEANWHILE)
        parts[index] = replace(parts[index], done=batch.position)

    async def finish(self, report: Callable[[str], None]) -> None:
        """See `Writer.finish`. An index that a neighbour's unfinished load had dropped is built as well."""
        marks = await self._ledger.marks()
        wanted = {name: text for mark in marks.values() for name, text in mark.indexes.items()}
        for table in self._vector_tables:
            name, statement = name_of(table, self._task.index), definition(table, self._task.index)
            if name is not None and statement is not None:
                wanted.setdefault(name, statement)
        for name, statement in wanted.items():
            if not await self._opened.fetchval("SELECT to_regclass($1)", f'"{name}"'):
                report(f"building index {name}")
                table = statement.split(" ON ", 1)[1].split(" ", 1)[0]
                rows = await self._opened.fetchval(f"SELECT count(*) FROM {table}")
                await build(self._opened, statement, rows, self._task.embedding.dim, self._task.budget)
        for namespace in self._streams:
            await self._opened.execute(f"ANALYZE {self._table(namespace)}")
        # A synchronous commit makes every earlier asynchronous one durable as well.
        await self._opened.execute("SET synchronous_commit = on")
        await self._ledger.advance(self._place, self._task.migration_id, MarkState.COPIED)


async def take(lock: Callable[[], Awaitable[bool]], patience_s: float, otherwise: BackendUnavailable) -> None:
    """Ask for a lock until it is ours. Raises `otherwise` when `patience_s` is over."""
    deadline = time.monotonic() + patience_s
    while not await lock():
        if time.monotonic() > deadline:
            raise otherwise
        await asyncio.sleep(0.25)


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


class PostgresWriterSession:
    """Async context manager: one connection, the advisory locks of the workspace's slots, one writer."""

    def __init__(self, task: Task, schema: SchemaMaker, selection: Selection) -> None:
        self._task = task
        self._schema = schema
        self._selection = selection
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> PostgresWriter:
        task = self._task
        opened = await self._stack.enter_async_context(
            connection(task.endpoint, purpose="writer", read_only=False, patience_s=15)
        )
        try:
            waited = busy(workspace_in(task.workspace, task.endpoint.name))
            ledger = Ledger(opened, task.workspace, task.slots, task.graph)
            await take(ledger.lock, LOCK_PATIENCE_S, waited)
            await take(ledger.lanes_ended, LOCK_PATIENCE_S, waited)
        except BaseException:
            await self._stack.aclose()
            raise
        return PostgresWriter(
            opened,
            task,
            lambda: asyncio.ensure_future(self._schema.create(self._selection, task.embedding)),
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        await self._stack.aclose()
        if isinstance(error, FAILURES):
            raise explain(error, self._task.endpoint) from error
