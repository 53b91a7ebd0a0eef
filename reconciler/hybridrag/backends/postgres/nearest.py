"""Nearest vectors as the server itself compares them, with the index out of the way."""

from __future__ import annotations

import time

import asyncpg

from hybridrag.model.data import Vectors
from hybridrag.model.findings import Nearest
from hybridrag.model.selection import Embedding

from .catalog import physical
from .client import connection
from .endpoint import Endpoint
from .tables import table_name

TOLERANCES = {"vector": 1e-5, "halfvec": 1e-3}
"""float32 sums; float16 keeps 11 bits of each component."""
PATIENCE_S = 30.0
"""Time that one table may take: each search reads every vector of the workspace."""
_EXACT = """
SELECT id, 1 - (content_vector <=> $2::text::{kind}) FROM {table}
WHERE workspace = $1 AND content_vector <=> $2::text::{kind} < 2
ORDER BY content_vector <=> $2::text::{kind} LIMIT {limit}
"""


async def nearest(
    endpoint: Endpoint, workspace: str, embedding: Embedding, namespace: str, queries: Vectors, count: int
) -> Nearest | None:
    """See `Store.nearest`. As many queries as the time allows, at least one."""
    table = table_name(namespace, embedding)
    async with (
        connection(endpoint, purpose="verify", read_only=True, patience_s=10) as opened,
        opened.transaction(isolation="repeatable_read", readonly=True),
    ):
        there = (await physical(opened, [table])).get(table)
        if there is None or there.vector_type not in TOLERANCES:
            return None
        await opened.execute("SET LOCAL enable_indexscan = off; SET LOCAL statement_timeout = 0")
        query = _EXACT.format(table=table, kind=there.vector_type, limit=count)
        found: list[list[tuple[str, float]]] = []
        deadline = time.monotonic() + PATIENCE_S
        for vector in queries:
            found.append(await _search(opened, query, workspace, vector))
            if time.monotonic() > deadline:
                break
    return Nearest(found=found, tolerance=TOLERANCES[there.vector_type])


async def _search(
    opened: asyncpg.Connection, query: str, workspace: str, vector: Vectors
) -> list[tuple[str, float]]:
    text = f"[{','.join(map(repr, vector.tolist()))}]"
    return [(row[0], row[1]) for row in await opened.fetch(query, workspace, text)]
