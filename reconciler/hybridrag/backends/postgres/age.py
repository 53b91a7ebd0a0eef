"""Graphs that LightRAG keeps in Apache AGE (PGGraphStorage): recognised, so that none is taken for an empty one.

AGE gives every graph a schema of its name, with a table for each label (`postgres_impl.py` 1.5.7,
`_get_workspace_graph_name`). The catalog tells this to everybody, also where the extension itself does not load.
"""

from __future__ import annotations

import re

import asyncpg

from .tables import GRAPH_NAMESPACE, IDENTIFIER_BYTES

_HOLDS_NODES = """
SELECT coalesce(sum(pg_relation_size(c.oid)), 0) > 0 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'base' AND EXISTS (
    SELECT 1 FROM pg_class WHERE relnamespace = n.oid AND relname = '_ag_label_vertex')
"""


def graph_name(workspace: str) -> str:
    """AGE's name of a workspace's graph."""
    own = workspace.strip()
    if not own or own.lower() == "default":
        return GRAPH_NAMESPACE
    return f"{re.sub('[^a-zA-Z0-9_]', '_', own)}_{GRAPH_NAMESPACE}"[:IDENTIFIER_BYTES]


async def graph_in_age(opened: asyncpg.Connection, workspace: str) -> str | None:
    """Name of the workspace's graph in AGE, where it holds nodes."""
    name = graph_name(workspace)
    return name if await opened.fetchval(_HOLDS_NODES, name) else None
