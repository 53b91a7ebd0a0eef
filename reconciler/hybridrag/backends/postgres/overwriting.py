"""Make way for a migration: delete what one workspace holds, in batches, and touch no other.

Each batch is a transaction. Our marks go first, so that what a kill leaves behind is data of nobody's, and is shown and
asked for again.
"""

from __future__ import annotations

import asyncpg

from hybridrag.errors import PlanRefused
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.ports import Embedding

from .endpoint import Endpoint
from .keeping import locked, taken_over
from .observe import foreign_vectors
from .tables import table_name

ROWS = 10_000
"""Rows of a batch."""
_SOME = """
DELETE FROM "{table}" WHERE ctid = ANY(ARRAY(SELECT ctid FROM "{table}" WHERE workspace = $1 LIMIT {rows}))
"""


async def make_way(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: frozenset[Slot],
    migration_id: str | None,
    rows: int = ROWS,
) -> None:
    """See `Store.make_way`. Edges before nodes, as they hang on them; vectors of another model go as well."""
    async with locked(endpoint, workspace, slots) as (opened, ledger):
        async with opened.transaction():
            marks = await ledger.marks()
            if any(mark.migration_id != migration_id or mark.state != "switched" for mark in marks.values()):
                raise taken_over(endpoint, workspace)
            if marks and not await ledger.forget(marks, kept=migration_id):
                raise taken_over(endpoint, workspace)
        tables = [
            table_name(name, embedding)
            for name in sorted(streams_of(slots), key=lambda name: name != "edges")
        ]
        if Slot.VECTOR in slots:
            tables += await foreign_vectors(opened, workspace, set(tables))
        for table in tables:
            await _empty(opened, table, workspace, rows)


async def _empty(opened: asyncpg.Connection, table: str, workspace: str, rows: int) -> None:
    if await opened.fetchval("SELECT to_regclass($1)", f'"{table}"') is None:
        return
    query = _SOME.format(table=table, rows=rows)
    try:
        while (await opened.execute(query, workspace)) != "DELETE 0":
            pass
    except asyncpg.InsufficientPrivilegeError:
        raise PlanRefused(
            f'this user may not delete rows of workspace "{workspace}" from table "{table}"',
            hint="grant it, or empty that workspace as the owner of the table; then run hybridrag apply",
        ) from None
