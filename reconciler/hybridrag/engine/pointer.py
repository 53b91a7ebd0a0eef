"""What live consumers follow to a database's backends, kept in the environment's registry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from hybridrag.journal import Registry, RegistryEntry, facts_of
from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts
from hybridrag.model.ports import Backend
from hybridrag.planner import JSON, in_use

Placed = Mapping[Slot, Backend]


class RegistryPointer:
    """`model.ports.Pointer` over the registry. `files` is the backend that stands for JSON files."""

    def __init__(self, registry: Registry, backends: Mapping[str, Backend], files: Backend) -> None:
        self._registry = registry
        self._backends = backends
        self._files = files

    def held(self) -> RegistryPointer:
        """The same over the registry as it is now, read once; for looking at many databases."""
        return RegistryPointer(self._registry.held(), self._backends, self._files)

    def current(self, database: str) -> Facts:
        """The entry as facts; the spec's type of a backend counts where it declares it."""
        facts = dict(facts_of(self._registry.read().databases.get(database)))
        pairs = [("backend", "backend_type"), *((f"slot/{s.value}", f"slot_type/{s.value}") for s in Slot)]
        for name, kind in pairs:
            if (backend := self._backends.get(str(facts.get(name)))) is not None:
                facts[kind] = backend.type
        return facts

    def register(self, database: str, path: str) -> None:
        """A database that its JSON files serve, as they would without an entry."""
        self._registry.put(RegistryEntry(name=database, path=path))

    def point(self, database: str, path: str, placement: Placed, workspace: str) -> None:
        self._registry.put(self._entry(database, path, placement, workspace, moved=True))

    def agrees(self, database: str, path: str, placement: Placed, workspace: str) -> bool:
        known = self._registry.read().databases.get(database)
        return known is not None and known == self._entry(database, path, placement, workspace, moved=False)

    def _entry(
        self, database: str, path: str, placement: Placed, workspace: str, *, moved: bool
    ) -> RegistryEntry:
        known = self._registry.read().databases.get(database)
        fields = known.model_dump() if known else {}
        places = {
            slot: {
                "backend": backend.name,
                "backend_type": backend.type,
                "backend_config": backend.registry_config(workspace) or None,
            }
            for slot, backend in placement.items()
        }
        mixed = len({backend.name for backend in placement.values()}) > 1
        apart = {"backend": None, "backend_type": "mixed", "backend_config": None}
        return RegistryEntry.model_validate(
            {
                **fields,
                **(apart if mixed else places[Slot.KV]),
                "name": database,
                "path": path,
                "slots": places if mixed else None,
                "kept": self._kept(database, placement) if moved else fields.get("kept", ()),
            }
        )

    def _kept(self, database: str, placement: Placed) -> list[dict[str, Any]]:
        """What served until now and does not any more, and what was kept before and does not serve again."""
        facts = self.current(database)
        left: dict[str, dict[str, Any]] = {}
        now = datetime.now(timezone.utc).replace(microsecond=0)
        for slot, name in in_use(facts).items():
            if name == (JSON if placement[slot].type == JSON else placement[slot].name):
                continue
            kind = JSON if name == JSON else facts.get(f"slot_type/{slot.value}") or facts.get("backend_type")
            shown = self._files.name if name == JSON else name
            entry = {"backend": shown, "backend_type": kind, "slots": (), "since": now}
            kept = left.setdefault(shown, entry)
            kept["slots"] = (*kept["slots"], slot.value)
        serving = {backend.name for backend in placement.values()}
        known = self._registry.read().databases.get(database)
        older = [kept.model_dump() for kept in (known.kept if known else ())]
        return [kept for kept in older if kept["backend"] not in {*serving, *left}] + list(left.values())
