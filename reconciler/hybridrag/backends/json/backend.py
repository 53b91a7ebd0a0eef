"""The `json` backend: always there, nothing to connect to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridrag.errors import HybridragError
from hybridrag.model.data import ALL_SLOTS, Slot
from hybridrag.model.facts import Facts
from hybridrag.model.ports import KnownCounts
from hybridrag.model.room import Room
from hybridrag.model.selection import Embedding

from .store import JsonStore, no_counts


class JsonBackend:
    """Files below each database's own path."""

    type = "json"
    provisioned = False

    def __init__(self, name: str, counts: KnownCounts = no_counts) -> None:
        self.name = name
        self._counts = counts

    async def observe(self) -> tuple[Facts, Facts]:
        return {"type": "json", "reachable": True}, {}

    def words(self, facts: Facts) -> tuple[str, ...]:
        return ()

    async def room(self) -> Room | None:
        return None  # each database has a folder, and so a volume, of its own

    async def provision(self) -> None:
        """Files need no server."""

    def problems(self, facts: Facts, embedding: Embedding) -> list[HybridragError]:
        return []

    async def start(self) -> None:
        """Files need no server."""

    async def stop(self) -> None:
        """Files need no server."""

    @property
    def serves(self) -> frozenset[Slot]:
        return ALL_SLOTS

    mends = False

    def store(
        self, path: str, workspace: str, embedding: Embedding, slots: frozenset[Slot] = ALL_SLOTS
    ) -> JsonStore:
        return JsonStore(self.name, Path(path), embedding, slots, self._counts)

    def mislaid(self, database: str, known: Mapping[str, Any] | None) -> None:
        """One place for each database, whatever the spec says."""

    def registry_config(self, workspace: str) -> dict[str, Any]:
        return {}
