"""Make way for a migration: delete what one workspace holds, in batches, and touch no other.

Each batch is a transaction. Our marks go first, so that what a kill leaves behind is data of nobody's, and is shown and
asked for again.
"""

from __future__ import annotations

import asyncpg

from hybridrag.backends.kit.marks import check_overwritable
from hybridrag.backends.kit.refusals import taken_over, workspace_in
from hybridrag.errors import PlanRefused
from hybridrag.model.data import Slot
from hybridrag.model.selection import Embedding

from . import carried
from .endpoint import Endpoint
from .graphs import IN_TABLES, Graph, mine, relations
from .keeping import locked
from .other_models import foreign_vectors

ROWS = 10_000
"""Rows of a batch."""
_SOME = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {mine} LIMIT {rows}))
"""


async def make_way(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: frozenset[Slot],
    migration_id: str | None,
    rows: int = ROWS,
    graph: Graph = IN_TABLES,
) -> None:
    """See `Store.make_way`. Edges before nodes, as they hang on them; vectors of another model go as well."""
    place = workspace_in(workspace, endpoint.name)
    async with locked(endpoint, workspace, slots, graph) as (opened, ledger):
        async with opened.transaction():
            marks = await ledger.marks()
            for mark in marks.values():
                check_overwritable(mark, migration_id, place)
            if marks and not await ledger.forget(marks, kept=migration_id):
                raise taken_over(place, "overwritten")
        tables = relations(workspace, embedding, slots, graph)
        for namespace, table in sorted(tables.items(), key=lambda item: item[0] != "edges"):
            await _empty(opened, table, mine(namespace, graph), workspace, rows)
        await carried.forget(opened, workspace, tables)
        if Slot.VECTOR in slots:
            for other in await foreign_vectors(opened, workspace, set(tables.values())):
                await _empty(opened, f'"{other}"', "workspace = $1", workspace, rows)


async def _empty(opened: asyncpg.Connection, table: str, condition: str, workspace: str, rows: int) -> None:
    if await opened.fetchval("SELECT to_regclass($1)", table) is None:
        return
    query = _SOME.format(table=table, mine=condition, rows=rows)
    try:
        while (await opened.execute(query, workspace)) != "DELETE 0":
            pass
    except asyncpg.InsufficientPrivilegeError:
        raise PlanRefused(
            f'this user may not delete rows of workspace "{workspace}" from table {table}',
            hint="grant it, or empty that workspace as the owner of the table; then run hybridrag apply",
        ) from None
