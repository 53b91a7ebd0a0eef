"""What live consumers follow to a database's backends: noted in every place concerned, and cached in the registry."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.failpoints import Point, failpoint
from hybridrag.journal import KeptEntry, RegistryEntry, facts_of
from hybridrag.journal.placement import note_name
from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts
from hybridrag.model.ports import Backend
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON, in_use

from .located_registry import LocatedRegistry
from .telling import Announcement

if TYPE_CHECKING:
    from .world import World

Placed = Mapping[Slot, Backend]


class RegistryPointer:
    """`model.services.Pointer` over the notes of the places and the registry; `run` is named in what it writes."""

    def __init__(self, world: World, registry: LocatedRegistry | None = None, run: str = "") -> None:
        self._world = world
        self._registry = registry or world.registry
        self._run = run

    def held(self) -> RegistryPointer:
        """The same over the registry as it is now, read once; for looking at many databases."""
        return RegistryPointer(self._world, self._registry.held(), self._run)

    def of_run(self, run: str) -> RegistryPointer:
        """The same, for what a run writes."""
        return RegistryPointer(self._world, self._registry, run)

    def current(self, database: str) -> Facts:
        """The entry as facts; the spec's type of a backend counts where it declares it."""
        facts = dict(facts_of(self._registry.read().databases.get(database)))
        pairs = [("backend", "backend_type"), *((f"slot/{s.value}", f"slot_type/{s.value}") for s in Slot)]
        for name, kind in pairs:
            if (backend := self._world.backends.get(str(facts.get(name)))) is not None:
                facts[kind] = backend.type
        found = self._world.located.get(database)
        if found is not None and found.contradiction is not None:
            facts |= {"contradiction": found.contradiction, "remedy": found.remedy}
        if found is not None and found.embedding is not None:
            facts |= {"noted/model": found.embedding.model, "noted/dim": found.embedding.dim}
        return facts

    async def register(self, database: str, path: str) -> tuple[str, ...]:
        """A database that its JSON files serve, as they would without an entry; see `point`."""
        return await self._change_to(RegistryEntry(name=database, path=path, **self._fed(database)))

    def _fed(self, database: str) -> dict[str, Any]:
        """What feeds a database, as the registry says it; what others wrote about theirs stays."""
        watched = self._world.watched.get(database)
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

    async def point(
        self,
        database: str,
        path: str,
        placement: Placed,
        workspace: str,
        *,
        left: Mapping[frozenset[Slot], str],
        behind: bool = False,
    ) -> tuple[str, ...]:
        entry = self._entry(database, path, placement, workspace)
        kept = self._kept(database, placement, left, behind)
        return await self._change_to(entry.model_copy(update={"kept": tuple(kept)}))

    async def adopt(self, item: Wanted, placement: Placed, kept: tuple[KeptEntry, ...]) -> tuple[str, ...]:
        """Note that these backends serve, whatever was noted before; see `point`."""
        entry = self._entry(item.database, item.path, placement, item.workspace)
        return await self._change_to(entry.model_copy(update={"kept": kept}))

    def entry(self, database: str) -> RegistryEntry | None:
        """What serves and is kept, to be put back."""
        return self._registry.read().databases.get(database)

    async def put_back(self, database: str, entry: RegistryEntry | None) -> tuple[str, ...]:
        """The entry as it was, with what was kept then; None for one that its files served without an entry."""
        if entry is None:
            entry = RegistryEntry(name=database, path=self._world.database(database).path)
        return await self._change_to(entry)

    async def retiring(self, database: str, backend: str, slots: Collection[Slot]) -> None:
        def mark(kept: KeptEntry) -> KeptEntry:
            return kept.model_copy(update={"retiring": True, "fingerprint": None})

        await self._change(database, backend, slots, mark)

    async def let_go(self, database: str, backend: str, slots: Collection[Slot]) -> None:
        await self._change(database, backend, slots, lambda _: None)

    async def _change(
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
        await self._change_to(entry.model_copy(update={"kept": tuple(kept for kept in made if kept)}))

    async def _change_to(self, entry: RegistryEntry) -> tuple[str, ...]:
        """Note a new revision in every place concerned, those that serve first, then cache it in the registry.

        Returns in words which places could not be told that they serve no more. Raises BackendUnavailable where one that
        is to serve cannot be told: nothing counts then. Raises LeaseHeld where another run was faster.
        """
        known = self._registry.read().databases.get(entry.name)
        entry = entry.model_copy(update={"revision": (known.revision if known else 0) + 1})
        announced = Announcement(world=self._world, entry=entry, run=self._run)
        found = self._world.located.get(entry.name)
        with self._registry.drafted(entry) as publish:
            await announced.told_to_serving(known)
            # From here on it counts, whatever becomes of this process or of the state folder.
            self._registry.found(entry)
            failpoint(Point.NOTED)
            untold = await announced.told_to_others(known, found.lagging if found else ())
            publish()
        return untold

    async def forget(self, database: str) -> None:
        """Drop the entry and the notes of a database, wherever they can be reached; its data stays."""
        if (item := self._world.wanted.get(database)) is not None:
            for name in (JSON, *(n for n, backend in self._world.backends.items() if backend.type != JSON)):
                with contextlib.suppress(HybridragError, OSError):
                    store = self._world.store(item, name, self._world.holder(name).serves)
                    await store.drop_note(note_name(self._world.environment, database))
        self._registry.drop(database)

    def unconfirmed(self, item: Wanted) -> bool:
        """Whether a place, or the registry, does not say yet what is known of a database."""
        found = self._world.located.get(item.database)
        if found is None or found.contradiction is not None:
            return False
        known = self._registry.read().databases.get(item.database)
        if known is None or known.revision == 0:
            return True
        return bool(found.lagging) or self._registry.file().databases.get(item.database) != known

    async def confirm(self, item: Wanted) -> None:
        """See that places and registry say what is known of a database that stays where it is."""
        found = self._world.located[item.database]
        known = self._registry.read().databases.get(item.database)
        if known is None or known.revision == 0:
            entry = known or RegistryEntry(name=item.database, path=item.path, **self._fed(item.database))
            await self._change_to(entry)
            return
        announced = Announcement(world=self._world, entry=known, run=self._run)
        for place in found.lagging:
            await announced.told([place])
        self._registry.put(known)

    @contextlib.asynccontextmanager
    async def claimed(self, items: Collection[Wanted]) -> AsyncIterator[None]:
        """While open no other run, of whatever state folder, works on these databases. Raises LeaseHeld."""
        async with contextlib.AsyncExitStack() as stack:
            for item in items:
                places = {*in_use(self.current(item.database)).values()}
                places |= {JSON if place.type == JSON else place.name for place in item.places}
                for place in sorted(places & {JSON, *self._world.backends}):
                    with contextlib.suppress(BackendUnavailable):  # the step that needs it says why
                        name = note_name(self._world.environment, item.database)
                        store = self._world.store(item, place, self._world.holder(place).serves)
                        await stack.enter_async_context(store.claimed(name))
            yield

    def agrees(self, database: str, path: str, placement: Placed, workspace: str) -> bool:
        """Whether what serves is this, and the registry, where it has an entry, says so as well."""
        known = self._registry.read().databases.get(database)
        cached = self._registry.file().databases.get(database)
        wanted = self._entry(database, path, placement, workspace)
        return known is not None and known == wanted and cached in (None, wanted)

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
            backend = self._world.backends.get(name)
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
                    backend=self._world.files.name if name == JSON else name,
                    backend_type=JSON if name == JSON else str(kind),
                    slots=tuple(chosen),
                    since=now,
                    backend_config=place.backend_config if place and name != JSON else None,
                    fingerprint=left[group] if group is not None and whole else None,
                    left_behind=behind,
                )
            )
        return found
