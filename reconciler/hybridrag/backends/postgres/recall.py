"""Recall: of the vectors nearest to a query, the share that LightRAG's search through the index really finds.

Workspaces share tables and indexes, and the filter on the workspace comes after the search, so a small workspace among
similar neighbours may be left with next to nothing. Nobody sees that from outside: the answer is only poorer.
"""

from __future__ import annotations

import time

import asyncpg

from hybridrag.model.data import Slot, streams_of
from hybridrag.model.findings import Recall
from hybridrag.model.selection import Embedding

from .catalog import physical
from .client import connection
from .endpoint import Endpoint
from .indexes import ITERATIVE, KINDS, version_of
from .spec import VectorIndexSpec
from .tables import table_name

SAMPLE = 20
"""Queries for each vector table."""
TOP_K = 20
TABLE_S = 30.0
"""Time that one table may take; an exact search reads every vector of the workspace."""
LOW = 0.9
_EPSILON = 1e-6
_NEAREST = """
SELECT content_vector <=> $2::text::{kind} AS distance FROM {table}
WHERE workspace = $1 AND content_vector <=> $2::text::{kind} < 2
ORDER BY content_vector <=> $2::text::{kind} LIMIT {limit}
"""
"""The shape of LightRAG's own query (`postgres_impl.py`, SQL_TEMPLATES), without its threshold."""


async def measure(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    index: VectorIndexSpec,
    settings: str,
    sample: int = SAMPLE,
) -> Recall | None:
    """Search as LightRAG would with `settings`, and exactly; compare. Reads only. None where there is nothing to search."""
    if not KINDS[index.type].method:
        return None
    found: dict[str, list[float]] = {}
    async with (
        connection(endpoint, purpose="recall", read_only=True, patience_s=10) as opened,
        opened.transaction(isolation="repeatable_read", readonly=True),
    ):
        version = await opened.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        tables = {name: table_name(name, embedding) for name in streams_of({Slot.VECTOR})}
        there = await physical(opened, tables.values())
        for name, table in tables.items():
            kind = there[table].vector_type if table in there else None
            if kind is not None:
                found[name] = await _of_table(opened, table, kind, workspace, settings, sample)
    shares = {name: sum(values) / len(values) for name, values in found.items() if values}
    if not shares:
        return None
    queries = sum(map(len, found.values()))
    share = sum(sum(values) for values in found.values()) / queries
    low = min(shares.values()) < LOW
    return Recall(
        share=share,
        nearest=TOP_K,
        queries=queries,
        by_namespace=shares,
        remedy=_remedy(endpoint, index, version_of(version or "0")) if low else None,
    )


def _remedy(endpoint: Endpoint, index: VectorIndexSpec, version: tuple[int, ...]) -> str:
    where = f"backends.{endpoint.name}.vector_index"
    if index.type == "ivfflat":
        first = f"{where}.type: hnsw finds more"
    else:
        first = f"raise {where}.ef_search (now {index.ef_search})"
    if endpoint.home is not None:  # no neighbours, so nothing that a version could go on searching past
        return first
    if version < ITERATIVE:
        first = "upgrade pgvector to 0.8 or newer"
    return f"{first}, or move it to a backend with isolation: database, where it has an index of its own"


async def _of_table(
    opened: asyncpg.Connection, table: str, kind: str, workspace: str, settings: str, sample: int
) -> list[float]:
    """Recall of each sampled query, as many as the time allows; the vectors themselves are the queries."""
    queries = await opened.fetch(
        f"SELECT content_vector::text FROM {table} WHERE workspace = $1 AND content_vector IS NOT NULL "
        "ORDER BY md5(id) LIMIT $2",
        workspace,
        sample,
    )
    shares: list[float] = []
    deadline = time.monotonic() + TABLE_S
    for row in queries:
        nearest = await _search(opened, table, kind, workspace, row[0], "enable_indexscan=off")
        seen = await _search(opened, table, kind, workspace, row[0], settings)
        if nearest:
            shares.append(_share(nearest, seen))
        if time.monotonic() > deadline:
            break
    return shares


def _share(nearest: list[float], seen: list[float]) -> float:
    """By distance, not by id: of equally near vectors any may be returned."""
    worst = nearest[-1] + _EPSILON
    return min(1.0, sum(distance <= worst for distance in seen) / len(nearest))


async def _search(
    opened: asyncpg.Connection, table: str, kind: str, workspace: str, text: str, settings: str
) -> list[float]:
    query = _NEAREST.format(table=table, kind=kind, limit=TOP_K)
    attempt = opened.transaction()
    await attempt.start()
    try:
        for pair in filter(None, settings.split("&")):
            name, _, value = pair.partition("=")
            await opened.fetchval("SELECT set_config($1, $2, true)", name, value)
        return [row[0] for row in await opened.fetch(query, workspace, text)]
    finally:
        await attempt.rollback()  # takes the settings back; a commit would keep them for the next search
