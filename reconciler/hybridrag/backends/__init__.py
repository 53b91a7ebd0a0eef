"""The only list of backends. A new engine is a folder beside the others and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridrag.model.strict import Strict

from .json.spec import JsonSpec
from .milvus.spec import MilvusSpec
from .postgres import isolation
from .postgres.spec import PostgresSpec, SettingName

SPECS: dict[str, type[Strict]] = {"json": JsonSpec, "postgres": PostgresSpec, "milvus": MilvusSpec}
"""Short backend type name -> the model of its entry below `backends:`."""
KEYS: tuple[Any, ...] = (SettingName,)
"""Types of keys in their maps."""


def own_place(name: str, entry: Mapping[str, object], workspace: str) -> tuple[tuple[str, str], str] | None:
    """(identity, words) of a place on a server that a workspace has for itself; None where it shares one.

    `entry` is plain and may be wrong elsewhere.
    """
    kind = str(entry.get("type")).lower()
    return isolation.own_place(name, entry, workspace) if kind == "postgres" else None
