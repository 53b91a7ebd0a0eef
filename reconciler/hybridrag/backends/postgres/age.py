"""Apache AGE as LightRAG uses it (PGGraphStorage): how it names graphs, and whether a workspace has one.

AGE gives every graph a schema of its name, with a table for each label (`postgres_impl.py` 1.5.7,
`_get_workspace_graph_name`). The catalog tells this to everybody, also where the extension itself does not load.
"""

from __future__ import annotations

import re

import asyncpg

from .isolation import graph_name

LABELS = {"nodes": "base", "edges": "DIRECTED"}
"""LightRAG's one label for nodes, and its one label for edges."""
_USABLE = re.compile(r"[a-z_][a-z0-9_]*")
_HOLDS_NODES = """
SELECT coalesce(sum(pg_relation_size(c.oid)), 0) > 0 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'base' AND EXISTS (
    SELECT 1 FROM pg_class WHERE relnamespace = n.oid AND relname = '_ag_label_vertex')
"""


def label(namespace: str, workspace: str) -> str:
    """The table of a label, quoted."""
    return f'"{graph_name(workspace)}"."{LABELS[namespace]}"'


def unusable(workspace: str) -> str | None:
    """Why LightRAG cannot use a graph of this name: it writes the name without quotes into its SQL."""
    name = graph_name(workspace)
    if _USABLE.fullmatch(name):
        return None
    what = "begins with a digit" if name[0].isdigit() else "has capital letters"
    return f'LightRAG cannot use a graph in Apache AGE whose name {what} ("{name}")'


async def graph_in_age(opened: asyncpg.Connection, workspace: str) -> str | None:
    """Name of the workspace's graph in AGE, where it holds nodes."""
    name = graph_name(workspace)
    return name if await opened.fetchval(_HOLDS_NODES, name) else None
