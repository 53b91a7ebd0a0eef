"""Write the notes of one database: to the places that serve it first, then to all that must know of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from hybridrag.errors import BackendUnavailable, HybridragError, LeaseHeld
from hybridrag.journal import RegistryEntry, facts_of
from hybridrag.journal.placement import EmbeddingNote, Placement, note_name, shared
from hybridrag.model.data import Slot
from hybridrag.model.notes import Note
from hybridrag.model.ports import Store
from hybridrag.planner import JSON, in_use

if TYPE_CHECKING:
    from .world import World

ATTEMPTS = 5
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """One revision to be told. `run` made it."""

    world: World
    entry: RegistryEntry
    run: str

    async def told_to_serving(self, known: RegistryEntry | None) -> None:
        """Those that begin to serve come first, so that a kill in between leaves what served before in force.

        Raises BackendUnavailable where one cannot be told, LeaseHeld where another run was faster.
        """
        before = set(in_use(facts_of(known)).values()) if known else set()
        now = dict.fromkeys(in_use(facts_of(self.entry)).values())
        for group in await self._places(sorted(now, key=lambda name: name in before)):
            await self._tell(group)

    async def told_to_others(
        self, known: RegistryEntry | None, lagging: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """In words which places could not be told that they serve no more."""
        now = set(in_use(facts_of(self.entry)).values())
        before = set(in_use(facts_of(known)).values()) if known else set()
        older = [each.name for one in (known, self.entry) if one for each in one.kept]
        others = [name for name in dict.fromkeys([*before, *older, *lagging, JSON]) if name not in now]
        untold = [
            f'backend "{name}" is not in the spec; it was not told that it does not serve "{self.entry.name}" any more'
            for name in others
            if name != JSON and name not in self.world.backends
        ]
        there = [name for name in others if name == JSON or name in self.world.backends]
        serving = {key for name in now if (key := await self._key(name)) is not None}
        for group in await self._places(there):
            if await self._key(group[0]) in serving:
                continue  # it was told as one that serves
            if (words := await self.told(group)) is not None:
                untold.append(words)
        return tuple(untold)

    async def told(self, group: Sequence[str]) -> str | None:
        """Tell one place, by the names that lead to it; why that was not possible, in words."""
        place = group[0]
        try:
            await self._tell(group)
        except LeaseHeld:
            raise
        except (HybridragError, OSError) as error:
            if place == JSON:  # no folder: nothing there can be mistaken for what serves
                return None
            why = error.what if isinstance(error, HybridragError) else str(error)
            return f'"{place}" was not told that it does not serve "{self.entry.name}" any more: {why}'
        return None

    async def _tell(self, group: Sequence[str]) -> None:
        """A cut connection hides whether the note was made, so it is made again: it is the same one."""
        store, note = self._store(group[0]), self._note(group)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(BackendUnavailable),
            stop=stop_after_attempt(1 if group[0] == JSON else ATTEMPTS),
            wait=wait_fixed(PAUSE_S),
            reraise=True,
        ):
            with attempt:
                await store.put_note(note_name(self.world.environment, self.entry.name), note)

    async def _places(self, names: Sequence[str]) -> list[list[str]]:
        """Names by the place that they lead to: several entries of a spec may lead to one."""
        found: dict[object, list[str]] = {}
        for name in names:
            found.setdefault(await self._key(name) or name, []).append(name)
        return list(found.values())

    async def _key(self, name: str) -> object | None:
        """Equal for entries with one place for notes; None where that cannot be told."""
        if name == JSON or name not in self.world.backends:
            return None
        with contextlib.suppress(HybridragError, OSError):
            return (await self._store(name).addresses()).get(Slot.VECTOR)
        return None

    def _store(self, place: str) -> Store:
        item = self.world.database(self.entry.name)
        return self.world.store(item, place, self.world.holder(place).serves)

    def _note(self, group: Sequence[str]) -> Note:
        item = self.world.database(self.entry.name)
        kept = {slot for each in self.entry.kept if each.name in group for slot in each.slots}
        serving = {slot for slot, name in in_use(facts_of(self.entry)).items() if name in group}
        return Placement(
            revision=self.entry.revision,
            environment=self.world.environment,
            database=self.entry.name,
            run=self.run,
            at=datetime.now(timezone.utc).replace(microsecond=0),
            here=group[0],
            serving=tuple(slot for slot in Slot if slot in serving),
            kept=tuple(slot for slot in Slot if slot in kept),
            embedding=EmbeddingNote(model=item.embedding.model, dim=item.embedding.dim),
            entry=shared(self.entry),
        ).to_note()
