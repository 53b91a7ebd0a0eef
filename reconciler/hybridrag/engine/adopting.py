"""Adopt: somebody says which backend serves a database, where the places contradict each other or nobody knows.

The only change is what the places' notes say; no record is touched. Called by `cli.adopt`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from hybridrag.errors import BackendUnavailable, HybridragError, NotFound, PlanRefused
from hybridrag.journal import KeptEntry
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.facts import Facts
from hybridrag.model.wanted import Wanted, in_words
from hybridrag.planner import JSON
from hybridrag.planner.parts import groups

from .locating import locate
from .registering import recorded
from .running import run_id
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What would be noted: the backend of each slot, the records found there, and what else is kept as a way back."""

    item: Wanted
    placement: Mapping[Slot, str]
    records: int
    kept: tuple[KeptEntry, ...]

    @property
    def serving(self) -> str:
        return in_words(self.placement)


async def plan_adoption(world: World, item: Wanted, placement: Mapping[Slot, str]) -> Adoption:
    """Look at the places; read-only. `placement` names backends of the spec.

    Raises NotFound where one holds nothing of the database, PlanRefused where it holds something else, BackendUnavailable.
    """
    await locate(world, [item])
    records = 0
    for name, slots in groups(dict(placement)):
        backend = world.backend(name)
        if lacking := sorted(slot.value for slot in slots - backend.serves):
            raise PlanRefused(
                f'backend "{name}" ({backend.type}) cannot hold the {" and ".join(lacking)} slot of "{item.database}"',
                hint=f"hybridrag adopt {item.database} --serving {name} --serving SLOT=BACKEND says it slot by slot",
            )
        facts = await _look(world, item, name, slots)
        _refuse_other(world, item, name, slots, facts)
        records += _records(facts, slots)
    kept = [each for each in _candidates(world, item, placement) if await _holds(world, item, each)]
    return Adoption(item=item, placement=placement, records=records, kept=tuple(kept))


async def adopt(world: World, adoption: Adoption) -> tuple[str, ...]:
    """Note it in every place, under the lease; words of places that could not be told. Raises LeaseHeld."""
    item = adoption.item
    placed = {slot: world.backend(name) for slot, name in adoption.placement.items()}
    with recorded(world, f"adopt.{item.database}"):
        pointer = world.pointer.of_run(run_id())
        async with pointer.claimed([item]):
            return await pointer.adopt(item, placed, adoption.kept)


async def _look(world: World, item: Wanted, name: str, slots: frozenset[Slot]) -> Facts:
    server, _ = await world.backend(name).observe()
    if not server.get("reachable"):
        hint = server.get("hint")
        raise BackendUnavailable(str(server.get("problem")), hint=str(hint) if hint else None)
    key = JSON if world.backend(name).type == JSON else name
    facts, _ = await world.store(item, key, slots).observe()
    return facts


def _refuse_other(world: World, item: Wanted, name: str, slots: frozenset[Slot], facts: Facts) -> None:
    if not facts.get("exists") or not _records(facts, slots):
        raise NotFound(
            f'backend "{name}" holds no records of database "{item.database}": {facts.get("missing") or "its place is empty"}',
            hint="hybridrag status shows what is where",
        )
    if facts.get("migration") is not None and facts.get("state") != "switched":
        raise PlanRefused(
            f'backend "{name}" holds an unfinished copy (it is {facts.get("state")}); it cannot serve "{item.database}"',
            hint="hybridrag apply finishes it",
        )
    key = JSON if world.backend(name).type == JSON else name
    if (words := world.located[item.database].claimed(key, slots)) is not None:
        raise PlanRefused(
            f'the place of database "{item.database}" in backend "{name}" {words}',
            hint=f"give databases.{item.database} a path or a workspace of its own",
        )


def _records(facts: Facts, slots: frozenset[Slot]) -> int:
    counts = (facts.get(f"records/{name}") for name in streams_of(slots))
    return sum(count for count in counts if isinstance(count, int))


def _candidates(world: World, item: Wanted, placement: Mapping[Slot, str]) -> list[KeptEntry]:
    """Places that the notes name and that will not serve: what was kept, and what served until now."""
    found = world.located[item.database]
    now = datetime.now(timezone.utc).replace(microsecond=0)
    serving = {slot: JSON if world.backend(n).type == JSON else n for slot, n in placement.items()}
    kept = list(found.entry.kept) if found.entry else []
    for name, slots in groups({slot: backend.name for slot, backend in world.serving(item).items()}):
        backend = world.backends.get(name, world.files)
        config = None if backend.type == JSON else dict(backend.registry_config(item.workspace)) or None
        ordered = tuple(slot for slot in Slot if slot in slots)
        kept.append(
            KeptEntry(
                backend=name, backend_type=backend.type, slots=ordered, since=now, backend_config=config
            )
        )
    return [each for each in kept if all(serving[slot] != each.name for slot in each.slots)]


async def _holds(world: World, item: Wanted, kept: KeptEntry) -> bool:
    """Whether anything of it is there; one that cannot be asked may."""
    if kept.name != JSON and kept.backend not in world.backends:
        return True
    with contextlib.suppress(HybridragError, OSError):
        facts, _ = await world.store(item, kept.name, frozenset(kept.slots)).observe()
        return bool(facts.get("exists")) and _records(facts, frozenset(kept.slots)) > 0
    return True
