"""Vectors of a workspace that lie in tables of another embedding model, or of none. Read-only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import asyncpg

from hybridrag.model.vectors import FINDS, Elsewhere, suffix_in

from .tables import TABLES

_LISTED = r"SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'lightrag\_vdb\_%' ORDER BY 1"


def stream_of(table: str) -> tuple[str, str] | None:
    """(stream of vectors, what follows its plain name) of a table; None where it is none of LightRAG's."""
    for namespace in FINDS:
        plain = TABLES[namespace].name
        rest = table.removeprefix(plain)
        if table.startswith(plain) and (not rest or rest.startswith("_")):
            return namespace, rest
    return None


async def vector_tables(opened: asyncpg.Connection) -> list[str]:
    """Every table that LightRAG made for vectors, of whatever model."""
    return [row["tablename"] for row in await opened.fetch(_LISTED)]


async def foreign_vectors(opened: asyncpg.Connection, workspace: str, ours: Collection[str]) -> list[str]:
    """Vector tables of another model (or without suffix) that hold rows of this workspace."""
    return [
        name
        for name in await vector_tables(opened)
        if name not in ours
        and await opened.fetchval(f'SELECT EXISTS (SELECT 1 FROM "{name}" WHERE workspace = $1)', workspace)
    ]


async def elsewhere(
    opened: asyncpg.Connection, workspace: str, holding: Collection[str], present: Mapping[str, str]
) -> list[Elsewhere]:
    """What such tables hold of a workspace. `present`: those of our own tables that exist, by stream.

    Tables without a suffix are left to `unsuffixed`: LightRAG itself moves what is in them.
    """
    found = []
    for name in holding:
        namespace, rest = stream_of(name) or ("", "")
        if not rest:
            continue
        own, suffix = present.get(namespace), suffix_in(rest)
        rows = await opened.fetchval(f'SELECT count(*) FROM "{name}" WHERE workspace = $1', workspace)
        apart = rows
        if own is not None:
            apart = await opened.fetchval(
                f'SELECT count(*) FROM "{name}" AS other WHERE workspace = $1 AND NOT EXISTS '
                f"(SELECT 1 FROM {own} AS own WHERE own.workspace = $1 AND own.id = other.id)",
                workspace,
            )
        found.append(Elsewhere(namespace=namespace, place=name, rows=rows, apart=apart, suffix=suffix))
    return found
