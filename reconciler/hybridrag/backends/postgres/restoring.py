"""What LightRAG needs beside the rows of a workspace that serves: made again where it is missing, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

import asyncpg

from hybridrag.model.data import Slot, streams_of
from hybridrag.model.selection import Embedding

from .building import Budget, build
from .catalog import physical
from .client import connection
from .endpoint import Endpoint
from .failures import FAILURES, explain
from .glance import unindexed
from .graphs import Graph, relations
from .indexes import definition, name_of
from .spec import VectorIndexSpec
from .tables import TABLES


async def complete(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: Collection[Slot],
    index: VectorIndexSpec,
    graph: Graph,
    budget: Budget,
    create_schema: Callable[[], Awaitable[None]],
    report: Callable[[str], None],
) -> None:
    """See `Mending.complete`. Tables are made by LightRAG itself, an index by the statement that LightRAG uses."""
    tables = relations(workspace, embedding, slots, graph)
    async with connection(endpoint, purpose="writer", read_only=False, patience_s=15) as opened:
        there = await physical(opened, tables.values())
        needed = {table for name, table in tables.items() if not TABLES[name].ours}
        if missing := sorted(needed - there.keys()):
            report(f"creating {', '.join(missing)}")
            await create_schema()
        vectors = [tables[name] for name in streams_of(slots) if TABLES[name].vector]
        try:
            for table in await unindexed(opened, vectors):
                await _index(opened, table, index, embedding, budget, report)
        except FAILURES as error:
            raise explain(error, endpoint) from error


async def _index(
    opened: asyncpg.Connection,
    table: str,
    index: VectorIndexSpec,
    embedding: Embedding,
    budget: Budget,
    report: Callable[[str], None],
) -> None:
    name, statement = name_of(table, index), definition(table, index)
    if name is None or statement is None:
        return
    report(f"building index {name}")
    # One that a build left invalid would stand in the way of its successor.
    invalid = "SELECT EXISTS (SELECT 1 FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid)"
    if await opened.fetchval(invalid, f'"{name}"'):
        await opened.execute(f'DROP INDEX "{name}"')
    rows = await opened.fetchval(f"SELECT count(*) FROM {table}")
    await opened.execute("SET statement_timeout = 0")
    await build(opened, statement, rows, embedding.dim, budget)
