"""What becomes of a copy that was kept: taken back under a migration's mark, or deleted with its marks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import asyncpg

from hybridrag.errors import PlanRefused
from hybridrag.model.data import Slot
from hybridrag.model.plan import owner_of
from hybridrag.model.selection import Embedding

from .client import connection
from .endpoint import Endpoint
from .graphs import IN_TABLES, Graph, mine, relations
from .ledger import Ledger
from .writer import LOCK_PATIENCE_S, SCHEMA_PATIENCE_S, take

RECLAIMED = "reclaimed"
"""The source's fingerprint of a copy taken back: no source has this one, so that all of it is compared."""


async def reclaim(
    endpoint: Endpoint,
    workspace: str,
    slots: Iterable[Slot],
    migration_id: str,
    create_schema: Callable[[], Awaitable[None]],
    graph: Graph = IN_TABLES,
) -> None:
    """See `Mending.reclaim`. LightRAG brings its tables up to date first: it may be a newer one than wrote them."""
    async with locked(endpoint, workspace, slots, graph) as (opened, ledger):
        await ledger.create()
        marks = await ledger.marks()
        for mark in marks.values():
            finished = mark.state == "switched" or mark.migration_id == migration_id
            if (
                owner_of(mark.migration_id) != owner_of(migration_id)
                or mark.state == "copying"
                or not finished
            ):
                raise taken_over(endpoint, workspace)
        busy = f'another session of hybridrag is creating tables in backend "{endpoint.name}"'
        await take(ledger.lock_schema, SCHEMA_PATIENCE_S, busy)
        await create_schema()
        await ledger.unlock_schema()
        async with opened.transaction():
            if marks and not await ledger.forget(marks, kept=next(iter(marks.values())).migration_id):
                raise taken_over(endpoint, workspace)
            await ledger.begin(migration_id, RECLAIMED, {})
            await ledger.advance(migration_id, "copied")


async def destroy(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: frozenset[Slot],
    migration_id: str | None,
    graph: Graph = IN_TABLES,
) -> None:
    """See `Store.destroy_kept`. Rows and marks go in one transaction. Edges before nodes, as they hang on them."""
    async with locked(endpoint, workspace, slots, graph) as (opened, ledger), opened.transaction():
        marks = await ledger.marks()
        if any(mark.migration_id != migration_id for mark in marks.values()):
            raise taken_over(endpoint, workspace)
        if marks and not await ledger.forget(marks, kept=migration_id):
            raise taken_over(endpoint, workspace)
        tables = relations(workspace, embedding, slots, graph)
        for namespace, table in sorted(tables.items(), key=lambda item: item[0] != "edges"):
            if await opened.fetchval("SELECT to_regclass($1)", table):
                await opened.execute(f"DELETE FROM {table} WHERE {mine(namespace, graph)}", workspace)


@contextlib.asynccontextmanager
async def locked(
    endpoint: Endpoint, workspace: str, slots: Iterable[Slot], graph: Graph = IN_TABLES
) -> AsyncIterator[tuple[asyncpg.Connection, Ledger]]:
    async with connection(endpoint, purpose="writer", read_only=False, patience_s=15) as opened:
        ledger = Ledger(opened, workspace, slots, graph)
        busy = f'workspace "{workspace}" in backend "{endpoint.name}" is being written by another session of hybridrag'
        await take(ledger.lock, LOCK_PATIENCE_S, busy)
        yield opened, ledger


def taken_over(endpoint: Endpoint, workspace: str) -> PlanRefused:
    return PlanRefused(
        f'workspace "{workspace}" in backend "{endpoint.name}" was taken over by another migration meanwhile; '
        "nothing was changed",
        hint="hybridrag plan shows what is there now",
    )
