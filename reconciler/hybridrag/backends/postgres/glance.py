"""A cheap look at many workspaces of one server: one statement a table, whatever their number.

Workspaces in the same Postgres database need one connection together; for databases of their own there is no other way
than a connection each, a few at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from hybridrag.errors import BackendUnavailable
from hybridrag.model.data import Slot
from hybridrag.model.findings import Glance
from hybridrag.model.selection import Embedding
from hybridrag.model.vectors import Elsewhere

from .catalog import physical, there
from .client import connection
from .endpoint import Endpoint
from .graphs import IN_TABLES, STREAMS, Graph, relations
from .ledger import owners_of
from .other_models import elsewhere, foreign_vectors
from .soundness import unlogged
from .tables import TABLES
from .unsuffixed import candidates, unsuffixed, words

COUNTED = 1_000_000
"""Rows (as the server's statistics have it) up to which a table is counted."""
_BLANK = "count(*) FILTER (WHERE content_vector IS NULL)"
AT_ONCE = 4
"""Connections that a look at many databases of one server may hold."""
MOST = 1000
"""Workspaces of a table that are counted; more are as bad."""


@dataclass(frozen=True, slots=True)
class Place:
    """Some slots of a workspace, and where they are."""

    endpoint: Endpoint
    workspace: str
    embedding: Embedding
    slots: frozenset[Slot]
    graph: Graph = IN_TABLES
    indexed: bool = True
    """Whether its vectors are to have an index."""

    @property
    def tables(self) -> dict[str, str]:
        """Relations by namespace."""
        return relations(self.workspace, self.embedding, self.slots, self.graph)

    @property
    def marked(self) -> str:
        """The name under which our mark stands."""
        owners = owners_of(self.workspace, self.slots, self.graph).values()
        return self.workspace if self.workspace in owners else min(owners)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Rows of one table by workspace; those of `estimated` come from the server's statistics.

    `blank` counts rows without a vector, in a table that should have one in each.
    """

    rows: dict[str, int] = field(default_factory=dict)
    estimated: set[str] = field(default_factory=set)
    blank: dict[str, int] = field(default_factory=dict)
    unlogged: bool = False


async def glance_stores(places: Sequence[Place]) -> list[Glance]:
    """One glance for each place on one server, in this order.

    Raises BackendUnavailable, but for a database of its own, whose glance tells it: the others are not to suffer.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def look(chosen: Sequence[int]) -> dict[int, Glance]:
        endpoint = places[chosen[0]].endpoint
        async with gate:
            try:
                found = await _glance_database(endpoint, [places[index] for index in chosen])
            except BackendUnavailable as error:
                if endpoint.home is None:
                    raise
                found = [Glance(problem=error.what) for _ in chosen]
        return dict(zip(chosen, found, strict=True))

    by_database: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        by_database.setdefault(place.endpoint.database, []).append(index)
    looks = await asyncio.gather(*map(look, by_database.values()))
    found = {index: glance for each in looks for index, glance in each.items()}
    return [found[index] for index in range(len(places))]


async def _glance_database(endpoint: Endpoint, places: Sequence[Place]) -> list[Glance]:
    tables = [place.tables for place in places]
    workspaces = sorted({place.workspace for place in places})
    # A graph in AGE has relations of its own, which nobody else's rows are in.
    alone = {
        names[stream]: place.workspace
        for place, names in zip(places, tables, strict=True)
        for stream in names.keys() & set(STREAMS)
        if place.graph is not IN_TABLES
    }
    async with (
        connection(endpoint, purpose="status", read_only=True) as opened,
        opened.transaction(isolation="repeatable_read", readonly=True),
    ):
        sizes = await _existing(opened, sorted({name for names in tables for name in names.values()}))
        vectors = {table for names in tables for name, table in names.items() if TABLES[name].vector}
        vectors &= sizes.keys()
        counts = {
            name: await _count_own(opened, name, rows, alone[name])
            if name in alone
            else await _count(opened, name, rows, workspaces, vectors=name in vectors)
            for name, rows in sizes.items()
        }
        for name in await unlogged(opened, list(sizes)):
            counts[name] = replace(counts[name], unlogged=True)
        without_index = await unindexed(opened, sorted(vectors))
        sharing = {name: await _sharing(opened, name) for name in vectors - without_index}
        others = [
            await _elsewhere(opened, place, names, sizes) for place, names in zip(places, tables, strict=True)
        ]
        lengths = {name: found.dim for name, found in (await physical(opened, sorted(vectors))).items()}
        marks = await _marks(opened, sorted({place.marked for place in places}))
        own = endpoint.home is not None
        size = await opened.fetchval("SELECT pg_database_size(current_database())") if own else None
        legacy = [
            await unsuffixed(
                opened,
                place.workspace,
                candidates(
                    names,
                    [n for n, t in names.items() if t in counts and counts[t].rows.get(place.workspace)],
                ),
            )
            for place, names in zip(places, tables, strict=True)
        ]
    return [
        replace(
            _glance(
                endpoint.name,
                place.workspace,
                names,
                counts,
                without_index if place.indexed else set(),
                sharing,
                marks.get(place.marked, (None, 0)),
                size,
                found,
            ),
            elsewhere=tuple(other),
            dims=frozenset(dim for name in names.values() if (dim := lengths.get(name))),
        )
        for place, names, other, found in zip(places, tables, others, legacy, strict=True)
    ]


async def _elsewhere(
    opened: asyncpg.Connection, place: Place, names: Mapping[str, str], present: Collection[str]
) -> list[Elsewhere]:
    """Vectors of a place's workspace in tables of other models than its own."""
    if Slot.VECTOR not in place.slots:
        return []
    holding = await foreign_vectors(opened, place.workspace, set(names.values()))
    own = {name: table for name, table in names.items() if table in present}
    return await elsewhere(opened, place.workspace, holding, own)


async def _existing(opened: asyncpg.Connection, names: Sequence[str]) -> dict[str, int]:
    """Rows of the tables that exist, as the server's statistics have it."""
    rows = await opened.fetch(
        "SELECT n, c.reltuples::bigint AS rows FROM unnest($1::text[]) AS n "
        f"JOIN pg_class c ON c.oid = {there('n')}",
        names,
    )
    return {row["n"]: row["rows"] for row in rows}


async def _count_own(opened: asyncpg.Connection, table: str, rows: int, workspace: str) -> _Counts:
    """Of a table that holds one workspace's rows only."""
    if rows > COUNTED:
        return _Counts({workspace: rows}, {workspace})
    return _Counts({workspace: await opened.fetchval(f"SELECT count(*) FROM {table}")})


async def _count(
    opened: asyncpg.Connection, table: str, rows: int, workspaces: Sequence[str], *, vectors: bool
) -> _Counts:
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
        f"SELECT workspace, count(*) AS rows, {_BLANK if vectors else 0} AS blank FROM {table} "
        "WHERE workspace = ANY($1) GROUP BY workspace",
        [name for name in workspaces if name not in counts.estimated],
    )
    counts.rows.update({row["workspace"]: row["rows"] for row in found})
    counts.blank.update({row["workspace"]: row["blank"] for row in found})
    return counts


async def unindexed(opened: asyncpg.Connection, names: Sequence[str]) -> set[str]:
    """Vector tables without a valid index of pgvector's, whatever its kind and name."""
    rows = await opened.fetch(
        "SELECT t FROM unnest($1::text[]) AS t WHERE NOT EXISTS (SELECT 1 FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid = to_regclass(t) AND i.indisvalid AND a.amname IN ('hnsw', 'ivfflat'))",
        names,
    )
    return {row["t"] for row in rows}


async def _sharing(opened: asyncpg.Connection, table: str) -> int:
    """Workspaces in a table, at most MOST. It steps from one to the next along the primary key, past their rows."""
    number: int = await opened.fetchval(
        f"WITH RECURSIVE found AS ((SELECT min(workspace) AS name FROM {table}) UNION ALL "
        f"SELECT (SELECT min(workspace) FROM {table} WHERE workspace > name) FROM found WHERE name IS NOT NULL) "
        f"SELECT count(name) FROM (SELECT name FROM found LIMIT {MOST}) AS listed"
    )
    return number


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
    backend: str,
    workspace: str,
    tables: dict[str, str],
    counts: dict[str, _Counts],
    unindexed: set[str],
    sharing: dict[str, int],
    mark: tuple[str | None, int],
    size: int | None,
    legacy: Sequence[str],
) -> Glance:
    missing = [table for name, table in tables.items() if table not in counts and not TABLES[name].ours]
    records = {
        namespace: counts[table].rows.get(workspace, 0) if table in counts else 0
        for namespace, table in tables.items()
        if table not in missing
    }
    without = sorted(
        name for name in tables.values() if name in unindexed and counts[name].rows.get(workspace)
    )
    state, copied = mark
    held = [n for name, n in sharing.items() if name in tables.values() and counts[name].rows.get(workspace)]
    neighbours = max(held, default=1) - 1
    return Glance(
        records={namespace: records.get(namespace) for namespace in tables},
        estimated=frozenset(n for n, t in tables.items() if t in counts and workspace in counts[t].estimated),
        problem=words(legacy)
        if legacy
        else f'LightRAG\'s table "{missing[0]}" is missing in its database'
        if missing
        else None,
        faults=(
            *(
                f'table "{name}" is UNLOGGED: a crash of the server empties it (ALTER TABLE {name} SET LOGGED)'
                for name in tables.values()
                if name in counts and counts[name].unlogged
            ),
            *(f'table "{name}" lacks its vector index: searches read all of it' for name in without),
            *(
                f'table "{name}" has {blank:,} rows whose vectors are gone'
                for name in tables.values()
                if name in counts and (blank := counts[name].blank.get(workspace, 0))
            ),
        ),
        state=state,
        copied=copied,
        size=size,
        warnings=(_shared(backend, neighbours),) if neighbours > 0 else (),
    )


def _shared(backend: str, neighbours: int) -> str:
    number = f"{neighbours:,}" if neighbours < MOST else f"more than {MOST - 1:,}"
    who = "1 other workspace" if neighbours == 1 else f"{number} other workspaces"
    return (
        f'backend "{backend}": its databases share their vector indexes with {who}, which costs searches recall '
        "(hybridrag verify measures it); a backend with isolation: database gives each an index of its own"
    )
