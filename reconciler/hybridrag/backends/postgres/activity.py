"""Signs that somebody is writing a workspace right now, as far as a server tells.

A lock that only an uncommitted write holds is a proof. A document that is still being processed is one only while a
client is at work: a LightRAG that died leaves such rows behind, and they must not block a migration for ever.
"""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from hybridrag.model.data import Slot
from hybridrag.model.selection import Embedding

from .catalog import there
from .graphs import IN_TABLES, Graph, relations
from .tables import TABLES

RECENT_S = 600
"""A client that did nothing for so long is not in the middle of a document."""
UNDER_WAY = ("parsing", "analyzing", "processing")
"""LightRAG's states of a document that somebody works on (`lightrag/base.py`, DocStatus); `pending` only waits."""

_WRITING = """
SELECT DISTINCT c.relname, c.oid::regclass::text AS relation, a.pid, a.usename, nullif(a.application_name, '') AS application
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY($1::regclass[]::oid[])
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND l.pid <> pg_backend_pid() AND coalesce(a.backend_type, 'client backend') = 'client backend'
ORDER BY 1, 3
"""
_AT_WORK = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name NOT LIKE 'hybridrag %'
  AND coalesce(backend_type, 'client backend') = 'client backend'
  AND coalesce(state_change, now()) > now() - make_interval(secs => $1)
"""


async def writes_under_way(
    opened: asyncpg.Connection,
    workspace: str,
    embedding: Embedding,
    slots: Collection[Slot],
    graph: Graph = IN_TABLES,
) -> list[str]:
    """Words for every write that is going on; empty when nobody writes."""
    busy = await _documents(opened, workspace) if Slot.DOC_STATUS in slots else 0
    names = list(relations(workspace, embedding, slots, graph).values())
    existing = [
        row[0]
        for row in await opened.fetch(
            f"SELECT n FROM unnest($1::text[]) AS n WHERE ({there('n')}) IS NOT NULL", names
        )
    ]
    words: list[str] = []
    for row in await opened.fetch(_WRITING, existing):
        # In a shared table it may be a neighbour's write, which is none of ours unless we have documents under way.
        if busy or not await _shared(opened, row["relation"], workspace):
            who = row["application"] or "an application without a name"
            words.append(f"an uncommitted write to {row['relname']} by user {row['usename']} ({who})")
    if busy and (at_work := await opened.fetchval(_AT_WORK, RECENT_S)):
        documents = "1 document is" if busy == 1 else f"{busy:,} documents are"
        words.append(f"{documents} being processed, with {at_work} other client(s) at work in the database")
    return sorted(set(words))


async def _documents(opened: asyncpg.Connection, workspace: str) -> int:
    table = TABLES["doc_status"].name
    if await opened.fetchval("SELECT to_regclass($1)", table) is None:
        return 0
    count: int = await opened.fetchval(
        f"SELECT count(*) FROM {table} WHERE workspace = $1 AND lower(status) = ANY($2)",
        workspace,
        list(UNDER_WAY),
    )
    return count


async def _shared(opened: asyncpg.Connection, table: str, workspace: str) -> bool:
    told_apart = await opened.fetchval(
        "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = $1::regclass AND attname = 'workspace')",
        table,
    )
    return bool(
        told_apart
        and await opened.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE workspace <> $1)", workspace)
    )
