"""Names of what one LightRAG database has for itself on a server: a Postgres database, a graph in Apache AGE. Pure.

A name is a fixed function of what the spec says, because nothing else is there to look it up in.
"""

from __future__ import annotations

import hashlib
import re

from .tables import GRAPH_NAMESPACE

NAME_BYTES = 63
"""What Postgres keeps of a name; it cuts off the rest without a word."""
_TAKEN = frozenset({"postgres", "template0", "template1", "azure_maintenance", "azure_sys"})
_DRAFT = "hybridrag_new_"


def own_database(database: str, workspace: str) -> str:
    """The Postgres database of one workspace, beside the configured `database`.

    Capitals are folded, as an unquoted name in SQL would be. Where folding or cutting lost something, a hash of the
    workspace keeps apart what would be the same.
    """
    plain = f"{database}_{workspace}"
    name = f"{database}_{workspace.lower()}"
    if name == plain and len(name.encode()) <= NAME_BYTES and name not in _TAKEN:
        return name
    mark = "_" + hashlib.sha256(f"{database}\0{workspace}".encode()).hexdigest()[:8]
    return name.encode()[: NAME_BYTES - len(mark)].decode(errors="ignore") + mark


def draft_of(name: str) -> str:
    """Under which name a database is made before it appears under its own."""
    return _DRAFT + hashlib.sha256(name.encode()).hexdigest()[:16]


def quoted(name: str) -> str:
    """An identifier as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def graph_name(workspace: str) -> str:
    """AGE's name of a workspace's graph."""
    own = workspace.strip()
    if not own or own.lower() == "default":
        return GRAPH_NAMESPACE
    return f"{re.sub('[^a-zA-Z0-9_]', '_', own)}_{GRAPH_NAMESPACE}"[:NAME_BYTES]


def literal(text: str) -> str:
    """A text as SQL takes it, whatever standard_conforming_strings says."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
