"""What becomes of a copy that was kept: taken back under a migration's mark, or deleted with its marks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import asyncpg

from hybridrag.backends.kit.marks import RECLAIMED, check_reclaimable, check_removable
from hybridrag.backends.kit.refusals import busy, taken_over, workspace_in
from hybridrag.model.data import Slot
from hybridrag.model.marks import MarkState
from hybridrag.model.selection import Embedding

from . import carried
from .client import connection
from .endpoint import Endpoint
from .graphs import IN_TABLES, Graph, mine, relations
from .ledger import Ledger
from .writer import LOCK_PATIENCE_S, SCHEMA_PATIENCE_S, take


async def reclaim(
    endpoint: Endpoint,
    workspace: str,
    slots: Iterable[Slot],
    migration_id: str,
    create_schema: Callable[[], Awaitable[None]],
    graph: Graph = IN_TABLES,
) -> None:
    """See `Mending.reclaim`. LightRAG brings its tables up to date first: it may be a newer one than wrote them."""
    place = workspace_in(workspace, endpoint.name)
    async with locked(endpoint, workspace, slots, graph) as (opened, ledger):
        await ledger.create()
        marks = await ledger.marks()
        for mark in marks.values():
            check_reclaimable(mark, migration_id, place)
        await take(ledger.lock_schema, SCHEMA_PATIENCE_S, busy(f'the schema of backend "{endpoint.name}"'))
        await create_schema()
        await ledger.unlock_schema()
        async with opened.transaction():
            if marks and not await ledger.forget(marks, kept=next(iter(marks.values())).migration):
                raise taken_over(place)
            await ledger.begin(migration_id, RECLAIMED, {})
            await ledger.advance(place, migration_id, MarkState.COPIED)


async def destroy(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: frozenset[Slot],
    migration_id: str | None,
    graph: Graph = IN_TABLES,
) -> None:
    """See `Store.destroy_kept`. Rows and marks go in one transaction. Edges before nodes, as they hang on them."""
    place = workspace_in(workspace, endpoint.name)
    async with locked(endpoint, workspace, slots, graph) as (opened, ledger), opened.transaction():
        marks = await ledger.marks()
        for mark in marks.values():
            check_removable(mark, migration_id, place, "deleted")
        if marks and not await ledger.forget(marks, kept=migration_id):
            raise taken_over(place, "deleted")
        tables = relations(workspace, embedding, slots, graph)
        for namespace, table in sorted(tables.items(), key=lambda item: item[0] != "edges"):
            if await opened.fetchval("SELECT to_regclass($1)", table):
                await opened.execute(f"DELETE FROM {table} WHERE {mine(namespace, graph)}", workspace)
        await carried.forget(opened, workspace, tables)


@contextlib.asynccontextmanager
async def locked(
    endpoint: Endpoint, workspace: str, slots: Iterable[Slot], graph: Graph = IN_TABLES
) -> AsyncIterator[tuple[asyncpg.Connection, Ledger]]:
    async with connection(endpoint, purpose="writer", read_only=False, patience_s=15) as opened:
        ledger = Ledger(opened, workspace, slots, graph)
        await take(ledger.lock, LOCK_PATIENCE_S, busy(workspace_in(workspace, endpoint.name)))
        yield opened, ledger
