"""The only list of backends. A new engine is a folder beside the others and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hybridrag.model.address import Address
from hybridrag.model.strict import Strict

from .json.spec import JsonSpec
from .json.whereabouts import folder_address
from .milvus import declared as milvus
from .milvus.spec import MilvusSpec
from .postgres import declared as postgres
from .postgres.spec import PostgresSpec, SettingName

SPECS: dict[str, type[Strict]] = {"json": JsonSpec, "postgres": PostgresSpec, "milvus": MilvusSpec}
"""Short backend type name -> the model of its entry below `backends:`."""
KEYS: tuple[Any, ...] = (SettingName,)
"""Types of keys in their maps."""
_DECLARED: Mapping[str, Callable[[str, Mapping[str, object], str], list[tuple[Address, str]]]] = {
    "postgres": postgres.declared,
    "milvus": milvus.declared,
}
_REGISTERED: Mapping[str, Callable[[Mapping[str, object]], Address | None]] = {
    "postgres": postgres.registered,
    "milvus": milvus.registered,
}

NAMED_AFTER_MODEL: Mapping[str, str] = {"postgres": "tables", "milvus": "collections"}
"""Types in which LightRAG's places for vectors bear the embedding model's name, and what those places are."""


def declared(name: str, entry: Mapping[str, object], workspace: str) -> list[tuple[Address, str]]:
    """The places that a spec's entry gives a workspace, each with what would be shared there ("the same workspace").

    None for files, which each database has in a folder of its own. `entry` is plain and may be wrong elsewhere.
    """
    found = _DECLARED.get(str(entry.get("type")).lower())
    return [] if found is None else found(name, entry, workspace)


def one_folder(path: str, other: str | None) -> bool:
    """Whether two paths lead to the same folder of files."""
    return other is not None and folder_address(Path(path)) == folder_address(Path(other))


def registered(kind: str, config: Mapping[str, object] | None) -> Address | None:
    """Where `backend_config` of a registry says that a workspace lies; None where it does not say."""
    found = _REGISTERED.get(kind)
    return None if found is None or config is None else found(config)
