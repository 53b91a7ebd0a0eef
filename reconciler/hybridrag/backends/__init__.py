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


def own_places(name: str, entry: Mapping[str, object], workspace: str) -> list[tuple[tuple[str, str], str]]:
    """(identity, words) of the places on a server that a workspace has for itself.

    `entry` is plain and may be wrong elsewhere.
    """
    kind = str(entry.get("type")).lower()
    if kind != "postgres":
        return []
    found = (rule(name, entry, workspace) for rule in (isolation.own_place, isolation.graph_place))
    return [place for place in found if place is not None]
