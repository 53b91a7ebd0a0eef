"""Names of Postgres databases that belong to one LightRAG database each (`isolation: database`). Pure.

A name is a fixed function of what the spec says, because nothing else is there to look it up in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

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


def own_place(
    backend: str, entry: Mapping[str, object], workspace: str
) -> tuple[tuple[str, str], str] | None:
    """((server, name), words) of a workspace's own Postgres database; None where the entry gives it none.

    For plain values of a spec that may be wrong elsewhere. A server that only its connection string names is known by
    the entry's name.
    """
    if entry.get("isolation") != "database":
        return None
    server = backend
    if not entry.get("provision") and not entry.get("connection_string"):
        host = str(entry.get("host") or "127.0.0.1").lower().replace("localhost", "127.0.0.1")
        server = f"{host}:{entry.get('port') or 5432}"
    name = own_database(str(entry.get("database") or "hybridrag"), workspace)
    return (server, name), f'the same Postgres database "{name}"'
