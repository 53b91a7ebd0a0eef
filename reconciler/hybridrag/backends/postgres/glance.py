"""A cheap look at many workspaces of one server: one connection, one statement a table whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from hybridrag.model.data import Slot
from hybridrag.model.ports import Embedding, Glance

from .client import connection
from .endpoint import Endpoint
from .graphs import IN_TABLES, STREAMS, Graph, relations
from .ledger import owners_of
from .tables import TABLES

COUNTED = 1_000_000
"""Rows (as the server's statistics have it) up to which a table is counted."""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Rows of one table by workspace; those of `estimated` come from the server's statistics."""

    rows: dict[str, int] = field(default_factory=dict)
    estimated: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Looked:
    """Some slots of a workspace to look at, and where its graph lies."""

    workspace: str
    embedding: Embedding
    slots: frozenset[Slot]
    graph: Graph

    @property
    def marked(self) -> str:
        """The name under which our mark stands."""
        owners = owners_of(self.workspace, self.slots, self.graph).values()
        return self.workspace if self.workspace in owners else min(owners)


async def glance_workspaces(endpoint: Endpoint, places: Sequence[Looked]) -> list[Glance]:
    """One glance for each. Raises BackendUnavailable."""
    tables = [relations(each.workspace, each.embedding, each.slots, each.graph) for each in places]
    workspaces = sorted({each.workspace for each in places})
    own = {
        names[stream]: each.workspace
        for each, names in zip(places, tables, strict=True)
        for stream in names.keys() & set(STREAMS)
        if each.graph is not IN_TABLES
    }
    async with (
        connection(endpoint, purpose="status", read_only=True) as opened,
        opened.transaction(isolation="repeatable_read", readonly=True),
    ):
        sizes = await _existing(opened, sorted({name for names in tables for name in names.values()}))
        counts = {
            name: await _count_own(opened, name, rows, own[name])
            if name in own
            else await _count(opened, name, rows, workspaces)
            for name, rows in sizes.items()
        }
        vectors = {table for names in tables for name, table in names.items() if TABLES[name].vector}
        unindexed = await _unindexed(opened, sorted(vectors & sizes.keys()))
        marks = await _marks(opened, sorted({each.marked for each in places}))
    return [
        _glance(each.workspace, names, counts, unindexed, marks.get(each.marked, (None, 0)))
        for each, names in zip(places, tables, strict=True)
    ]


async def _existing(opened: asyncpg.Connection, names: Sequence[str]) -> dict[str, int]:
    """Rows of the tables that exist, as the server's statistics have it."""
    rows = await opened.fetch(
        "SELECT n, c.reltuples::bigint AS rows FROM unnest($1::text[]) AS n JOIN pg_class c ON c.oid = to_regclass(n)",
        names,
    )
    return {row["n"]: row["rows"] for row in rows}


async def _count_own(opened: asyncpg.Connection, table: str, rows: int, workspace: str) -> _Counts:
    """Of a table that holds one workspace's rows only."""
    if rows > COUNTED:
        return _Counts({workspace: rows}, {workspace})
    return _Counts({workspace: await opened.fetchval(f"SELECT count(*) FROM {table}")})


async def _count(opened: asyncpg.Connection, table: str, rows: int, workspaces: Sequence[str]) -> _Counts:
    counts = _Counts()
    if rows > COUNTED:
        common = await opened.fetchrow(
            "SELECT most_common_vals::text::text[] AS names, most_common_freqs AS parts FROM pg_stats "
            "WHERE attname = 'workspace' AND (schemaname, tablename) = (SELECT nspname, relname FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1))",
            table,
        )
        for name, part in zip(common["names"] or (), common["parts"] or (), strict=True) if common else ():
            if name in workspaces:
                counts.rows[name] = round(part * rows)
                counts.estimated.add(name)
    # A workspace that the statistics do not know is small, and the primary key begins with it.
    found = await opened.fetch(
        f"SELECT workspace, count(*) AS rows FROM {table} WHERE workspace = ANY($1) GROUP BY workspace",
        [name for name in workspaces if name not in counts.estimated],
    )
    counts.rows.update({row["workspace"]: row["rows"] for row in found})
    return counts


async def _unindexed(opened: asyncpg.Connection, names: Sequence[str]) -> set[str]:
    """Vector tables without a valid index of pgvector's, whatever its kind and name."""
    rows = await opened.fetch(
        "SELECT t FROM unnest($1::text[]) AS t WHERE NOT EXISTS (SELECT 1 FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid = to_regclass(t) AND i.indisvalid AND a.amname IN ('hnsw', 'ivfflat'))",
        names,
    )
    return {row["t"] for row in rows}


async def _marks(opened: asyncpg.Connection, workspaces: Sequence[str]) -> dict[str, tuple[str, int]]:
    """(state, committed records) of our marks, by workspace."""
    if await opened.fetchval("SELECT to_regclass('hybridrag_ledger.checkpoint')") is None:
        return {}
    rows = await opened.fetch(
        "SELECT workspace, state, coalesce((SELECT sum(records) FROM hybridrag_ledger.checkpoint c "
        "WHERE c.workspace = m.workspace), 0)::bigint AS copied FROM hybridrag_ledger.migration m "
        "WHERE workspace = ANY($1)",
        workspaces,
    )
    return {row["workspace"]: (row["state"], row["copied"]) for row in rows}


def _glance(
    workspace: str,
    tables: dict[str, str],
    counts: dict[str, _Counts],
    unindexed: set[str],
    mark: tuple[str | None, int],
) -> Glance:
    missing = [name for name in tables.values() if name not in counts]
    records = {
        namespace: counts[table].rows.get(workspace, 0)
        for namespace, table in tables.items()
        if table in counts
    }
    without = sorted(
        name for name in tables.values() if name in unindexed and counts[name].rows.get(workspace)
    )
    state, copied = mark
    return Glance(
        records={namespace: records.get(namespace) for namespace in tables},
        estimated=frozenset(n for n, t in tables.items() if t in counts and workspace in counts[t].estimated),
        problem=f'LightRAG\'s table "{missing[0]}" is missing in its database' if missing else None,
        faults=tuple(f'table "{name}" lacks its vector index: searches read all of it' for name in without),
        state=state,
        copied=copied,
    )
