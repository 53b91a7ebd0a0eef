"""Reading a workspace: every stream in the order in which its rows lie in the table, from one snapshot if wanted.

That order costs no sort, and it is stable as long as the fingerprint is: a row that changes its place changes its ctid.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import TYPE_CHECKING, Any

import asyncpg

from hybridrag.errors import BackendUnavailable, NotFound, SourceUnreadable
from hybridrag.model.data import ALL_SLOTS, Batch, Slot
from hybridrag.model.selection import Embedding

from .activity import writes_under_way
from .carried import carries, with_carried
from .catalog import expressions, physical
from .client import connection
from .copy_binary import Decoder, RowSplitter
from .endpoint import Endpoint
from .fingerprint import fingerprint_of, tally_all
from .graphs import IN_TABLES, STREAMS, Graph, RowDecoder, relation
from .rows import Shape
from .tables import TABLES

if TYPE_CHECKING:
    from .moment import PostgresMoment

GROUP_BYTES = 1 << 20
Rows = list[list[bytes | None]]
Only = Callable[[str], tuple[str, tuple[list[str], ...]]]
"""By namespace a condition, with what it is given from $2 on: of all rows only those are read."""
_IN_PLACE = """
SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_tidscan = off;
SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0;
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
"""
"""What is left is a scan from the first page to the last, with or without a bitmap."""


class PostgresReader:
    """See `model.ports.Reader`. Each stream is read on a read-only session of its own."""

    def __init__(
        self,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        slots: Collection[Slot] = ALL_SLOTS,
        snapshot: str | None = None,
        graph: Graph = IN_TABLES,
        only: Only | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding
        self._slots = slots
        self._snapshot = snapshot
        self._graph = graph
        self._only = only

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[asyncpg.Connection]:
        """A read-only transaction with one view of everything; the exported one, where there is one."""
        async with connection(self._endpoint, purpose="read", read_only=True, patience_s=10) as opened:
            # Ended by closing the session: a stream that is given up leaves it unfit for a ROLLBACK.
            await opened.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            if self._snapshot is not None:
                await self._join(opened, self._snapshot)
            await opened.execute(_IN_PLACE)
            yield opened

    async def _join(self, opened: asyncpg.Connection, snapshot: str) -> None:
        try:
            await opened.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        except (asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError):
            raise BackendUnavailable(
                f'backend "{self._endpoint.name}" (postgres at {self._endpoint.address}) ended the session that kept the '
                "source's snapshot",
                hint="see its log and that it runs (hybridrag status); then hybridrag apply goes on from the checkpoint",
            ) from None

    def snapshot(self) -> contextlib.AbstractAsyncContextManager[PostgresMoment]:
        """A reader whose streams and fingerprint all show the state of this moment, whatever commits meanwhile."""
        from .moment import snapshot  # it is made of readers

        return snapshot(self)

    async def fingerprint(self) -> str:
        """See `Reader.fingerprint`; one scan of each table, without what is stored out of line."""
        async with self._session() as opened:
            present, tallies = await tally_all(
                opened, self._workspace, self._embedding, self._slots, self._graph
            )
            if not present:
                raise NotFound(
                    f'backend "{self._endpoint.name}" (postgres, database "{self._endpoint.database}") has no tables of '
                    "LightRAG",
                    hint="hybridrag status shows what is where",
                )
            return await fingerprint_of(opened, self._workspace, present, tallies)

    async def unfinished(self) -> list[str]:
        async with self._session() as opened:
            return await writes_under_way(opened, self._workspace, self._embedding, self._slots, self._graph)

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        """Streamed by COPY TO, so that memory is bounded by bytes whatever the size of a row."""
        table = relation(namespace, self._workspace, self._embedding, self._graph)
        async with self._session() as opened:
            present = (await physical(opened, [table])).get(table)
            if present is None and TABLES[namespace].ours:
                return
            if present is None:
                raise SourceUnreadable(
                    f'backend "{self._endpoint.name}" (postgres, database "{self._endpoint.database}") has no table '
                    f'"{table}"',
                    hint="check embedding.model and embedding.dim of the database in the spec; they are part of its name",
                )
            decoder: RowDecoder
            beside = False
            condition, chosen = self._only(namespace) if self._only else ("true", ())
            if namespace in STREAMS and self._only is None:
                decoder = self._graph.decoder(namespace)
                query = self._graph.query(namespace, self._workspace, present, skip)
            else:
                beside = namespace not in STREAMS and await carries(opened, self._workspace, namespace)
                decoder = rows_of = Decoder(Shape(namespace), carried=beside)
                selected = ", ".join(expressions(TABLES[namespace], rows_of.select, present))
                query = (
                    f"SELECT {selected} FROM {table} WHERE workspace = $1 AND {condition} OFFSET {int(skip)}"
                )
            if stop is not None:
                query += f" LIMIT {max(0, int(stop) - int(skip))}"
            if beside:
                query = with_carried(query, namespace)
            ready: asyncio.Queue[tuple[Rows, int] | None] = asyncio.Queue(maxsize=1)
            copying = asyncio.create_task(_copy_out(opened, query, (self._workspace, *chosen), rows, ready))
            position = skip
            try:
                while (found := await ready.get()) is not None:
                    position += len(found[0])
                    batch = self._decoded(decoder, table, found[0], position)
                    batch.size = found[1]
                    yield batch
                await copying
            finally:
                copying.cancel()
                await asyncio.gather(copying, return_exceptions=True)

    def _decoded(self, decoder: RowDecoder, table: str, rows: Rows, position: int) -> Batch:
        try:
            return decoder.decode(rows, position)
        except (ValueError, OverflowError) as error:
            raise SourceUnreadable(
                f'table "{table}" in backend "{self._endpoint.name}" holds a value that no record can hold ({error}), '
                f"among rows {position - len(rows) + 1:,} to {position:,} of workspace {self._workspace!r}",
                hint="correct it in the source, then run hybridrag plan",
            ) from None


async def _copy_out(
    opened: asyncpg.Connection,
    query: str,
    given: tuple[Any, ...],
    rows: int,
    ready: asyncio.Queue[tuple[Rows, int] | None],
) -> None:
    """Put groups of rows into the queue, each bounded by number and bytes; None at the end, and after an error."""
    splitter = RowSplitter()
    group: Rows = []
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
        await opened.copy_from_query(query, *given, output=sink, format="binary")
        if group:
            await ready.put((group, size))
    except asyncio.CancelledError:
        raise  # the reader is gone: nobody would make room for an end mark
    except BaseException:
        await ready.put(None)
        raise
    await ready.put(None)
