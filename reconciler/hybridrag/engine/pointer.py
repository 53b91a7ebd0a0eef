"""What live consumers follow to a database's backends, kept in the environment's registry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from typing import Any

from hybridrag.errors import HybridragError
from hybridrag.journal import KeptEntry, Registry, RegistryEntry, facts_of
from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts
from hybridrag.model.ports import Backend
from hybridrag.model.watching import Watched
from hybridrag.planner import JSON, in_use

Placed = Mapping[Slot, Backend]


class RegistryPointer:
    """`model.services.Pointer` over the registry. `files` is the backend that stands for JSON files.

    `watched` says what feeds those databases that our daemon feeds.
    """

    def __init__(
        self,
        registry: Registry,
        backends: Mapping[str, Backend],
        files: Backend,
        watched: Mapping[str, Watched] | None = None,
    ) -> None:
        self._registry = registry
        self._backends = backends
        self._files = files
        self._watched = watched or {}

    def held(self) -> RegistryPointer:
        """The same over the registry as it is now, read once; for looking at many databases."""
        return RegistryPointer(self._registry.held(), self._backends, self._files, self._watched)

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
        self._registry.put(RegistryEntry(name=database, path=path, **self._fed(database)))

    def _fed(self, database: str) -> dict[str, Any]:
        """What feeds a database, as the registry says it; what others wrote about theirs stays."""
        watched = self._watched.get(database)
        return (
            {}
            if watched is None
            else {
                "source_folder": watched.source.path,
                "source_type": watched.source.kind,
                "auto_watch": True,
                "watch_interval": watched.interval_s,
            }
        )

    def point(
        self,
        database: str,
        path: str,
        placement: Placed,
        workspace: str,
        *,
        left: Mapping[frozenset[Slot], str],
        behind: bool = False,
    ) -> None:
        entry = self._entry(database, path, placement, workspace)
        kept = self._kept(database, placement, left, behind)
        self._registry.put(entry.model_copy(update={"kept": tuple(kept)}))

    def entry(self, database: str) -> RegistryEntry | None:
        """What the registry says of it, to be put back."""
        return self._registry.read().databases.get(database)

    def put_back(self, database: str, entry: RegistryEntry | None) -> None:
        """The entry as it was, with what was kept then; None where there was none."""
        if entry is None:
            self._registry.drop(database)
        else:
            self._registry.put(entry)

    def retiring(self, database: str, backend: str, slots: Collection[Slot]) -> None:
        def mark(kept: KeptEntry) -> KeptEntry:
            return kept.model_copy(update={"retiring": True, "fingerprint": None})

        self._change(database, backend, slots, mark)

    def let_go(self, database: str, backend: str, slots: Collection[Slot]) -> None:
        self._change(database, backend, slots, lambda _: None)

    def _change(
        self,
        database: str,
        backend: str,
        slots: Collection[Slot],
        change: Callable[[KeptEntry], KeptEntry | None],
    ) -> None:
        entry = self._registry.read().databases.get(database)
        if entry is None:
            return
        made = [
            change(kept) if (kept.name, set(kept.slots)) == (backend, set(slots)) else kept
            for kept in entry.kept
        ]
        self._registry.put(entry.model_copy(update={"kept": tuple(kept for kept in made if kept)}))

    def agrees(self, database: str, path: str, placement: Placed, workspace: str) -> bool:
        known = self._registry.read().databases.get(database)
        return known is not None and known == self._entry(database, path, placement, workspace)

    def mislaid(self, database: str, *, kept: bool) -> HybridragError | None:
        """Why something of a database would be looked for in another place than the registry says; `kept` included."""
        entry = self._registry.read().databases.get(database)
        if entry is None:
            return None
        slots = (entry.slots or {}).values()
        places = [(place.backend, place.backend_config) for place in slots]
        places += [] if places else [(entry.backend or "", entry.backend_config)]
        places += [(each.backend, each.backend_config) for each in entry.kept] if kept else []
        for name, config in places:
            backend = self._backends.get(name)
            if backend is not None and (error := backend.mislaid(database, config)):
                return error
        return None

    def _entry(self, database: str, path: str, placement: Placed, workspace: str) -> RegistryEntry:
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
                **self._fed(database),
                **(apart if mixed else places[Slot.KV]),
                "name": database,
                "path": path,
                "slots": places if mixed else None,
            }
        )

    def _kept(
        self, database: str, placement: Placed, left: Mapping[frozenset[Slot], str], behind: bool
    ) -> list[KeptEntry]:
        """What was kept before and does not serve again, and what served until now and does not any more."""
        facts = self.current(database)
        now = datetime.now(timezone.utc).replace(microsecond=0)
        serving = {
            slot: JSON if backend.type == JSON else backend.name for slot, backend in placement.items()
        }
        leaving = {slot: name for slot, name in in_use(facts).items() if name != serving[slot]}
        known = self._registry.read().databases.get(database)
        found = []
        for older in known.kept if known else ():
            slots = tuple(s for s in older.slots if older.name not in (serving[s], leaving.get(s)))
            if slots == older.slots:
                found.append(older)
            elif slots:
                # The fingerprint was of all of its slots together.
                found.append(older.model_copy(update={"slots": slots, "fingerprint": None}))
        together: dict[tuple[str, frozenset[Slot] | None], list[Slot]] = {}
        for slot, name in leaving.items():
            group = next((slots for slots in left if slot in slots), None)
            if known is None and group is None:
                continue  # nothing was left: it was made where it is
            together.setdefault((name, group), []).append(slot)
        for (name, group), chosen in together.items():
            kind = facts.get(f"slot_type/{chosen[0].value}") or facts.get("backend_type")
            place = known.slots[chosen[0]] if known and known.slots else known
            whole = group is not None and group == set(chosen)
            found.append(
                KeptEntry(
                    backend=self._files.name if name == JSON else name,
                    backend_type=JSON if name == JSON else str(kind),
                    slots=tuple(chosen),
                    since=now,
                    backend_config=place.backend_config if place and name != JSON else None,
                    fingerprint=left[group] if group is not None and whole else None,
                    left_behind=behind,
                )
            )
        return found
