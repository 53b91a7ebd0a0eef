"""Vectors in tables without the model's suffix, where LightRAG before 1.4.9.9, or one that is told no model, keeps them.

LightRAG that is told a model makes tables with its suffix when it starts, and copies the workspace's rows into them
(`postgres_impl.py` 1.5.7, setup_table). Until then those of the spec's model are not there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import asyncpg

from .tables import TABLES


def candidates(tables: Mapping[str, str], filled: Collection[str]) -> list[str]:
    """Tables without suffix in which vectors may lie: of namespaces that have no rows in a table with suffix.

    `filled`: namespaces with rows of the workspace.
    """
    return [
        TABLES[name].name
        for name, table in tables.items()
        if TABLES[name].vector and name not in filled and table != TABLES[name].name
    ]


async def unsuffixed(opened: asyncpg.Connection, workspace: str, names: Sequence[str]) -> list[str]:
    """Those of the named tables that hold rows of the workspace."""
    there = await opened.fetch(
        "SELECT n FROM unnest($1::text[]) AS n WHERE to_regclass(n) IS NOT NULL", names
    )
    return [
        row["n"]
        for row in there
        if await opened.fetchval(f"SELECT EXISTS (SELECT 1 FROM {row['n']} WHERE workspace = $1)", workspace)
    ]


def words(found: Sequence[str]) -> str:
    return (
        f"its vectors lie in tables without a model's suffix ({', '.join(found)}), and the spec names a model; LightRAG "
        "copies them into tables of that model when it is next started with it"
    )
