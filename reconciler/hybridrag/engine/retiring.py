"""The end of the way back: which kept copies may be deleted. The plan is made here; `actions/retire.py` deletes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from hybridrag.backends import registered
from hybridrag.errors import BackendUnavailable, PlanRefused, SpecInvalid, VerificationFailed
from hybridrag.model.address import Addresses, shared
from hybridrag.model.data import BY_NAME, Slot, streams_of
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.marks import FINISHED
from hybridrag.model.plan import Hazard, HazardKind, Move, Plan, Step
from hybridrag.model.ports import Backend, Store
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON, in_use, store_thing
from hybridrag.planner.stores import total

from .kept import Kept, kept_of
from .locating import locate
from .planning import Planned
from .taken import taken
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A kept copy that is to be deleted: records and bytes as they are now. `changed`: not as it was left.

    `drops` in words what goes with its last record, None where nothing does.
    """

    kept: Kept
    records: int
    bytes: int | None
    changed: bool
    drops: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """The plan and what it deletes; `early` is kept longer."""

    planned: Planned
    doomed: tuple[Doomed, ...]
    early: tuple[Kept, ...]


async def plan_retirement(
    world: World, item: Wanted, now: datetime, *, hurry: bool, allowed: Sequence[HazardKind] = ()
) -> Retirement:
    """Read-only; `hurry` does not wait for the end of the window. Raises PlanRefused, BackendUnavailable, NotFound.

    Nothing to delete gives an empty plan.
    """
    await locate(world)
    world.refuse_mislaid(item)
    kept = kept_of(world.registry, item)
    if kept and item.prevent_destroy:
        raise PlanRefused(
            f'database "{item.database}": lifecycle.prevent_destroy forbids to delete what is kept of it',
            hint=f"if it is meant: databases.{item.database}.lifecycle.prevent_destroy: false, then again",
        )
    due = [each for each in kept if hurry or each.retiring or each.until <= now]
    early = tuple(each for each in kept if each not in due)
    if early and not due:
        until = min(each.until for each in early)
        raise PlanRefused(
            f'database "{item.database}": {", ".join(each.shown for each in early)} is kept until {until:%Y-%m-%d %H:%M}Z',
            hint=f"hybridrag retire {item.database} --now deletes it today, and with it the way back",
        )
    steps, moves, doomed = [], {}, []
    facts: dict[str, Facts] = {}
    serving = in_use(world.pointer.current(item.database))
    for each in due:
        await _refuse_serving(world, item, each)
        _refuse_shared(world, item, each)
        found = await _look(world, item, each)
        await _refuse_only_copy(world, item, each, found, fewer=HazardKind.OTHER_DATA in allowed)
        one = _doomed(each, found)
        if one.changed and HazardKind.OTHER_DATA not in allowed:
            raise PlanRefused(
                f'database "{item.database}": what is kept in "{each.backend}" is not as it was left: it was written since',
                hint="find out who writes it; if nothing there is needed: --allow other_data",
            )
        move = Move(
            id=f"{item.database}@{each.name}:{'+'.join(slot.value for slot in each.slots)}",
            database=item.database,
            slots=each.slots,
            source=each.name,
            target=world.holder(serving[each.slots[0]]).name,
            workspace=item.workspace,
            fingerprint=str(found.get("fingerprint") or ""),
            migration_id=str(found.get("migration") or ""),
        )
        moves[move.id] = move
        facts[store_thing(item.database, each.name, each.slots)] = found
        doomed.append(one)
        steps.append(
            Step(
                id=f"retire.{move.id}",
                verb="retire",
                target=move.id,
                summary=f"delete {one.records:,} records kept in {each.shown}"
                + (f", and {one.drops} with them" if one.drops else ""),
                reason="the time it is kept is over" if each.until <= now else "asked for before its time",
                records=one.records,
                bytes=one.bytes,
                hazards=(Hazard(kind=HazardKind.OTHER_DATA, detail="it was written since it was left"),)
                if one.changed
                else (),
            )
        )
    observation = Observation(facts=facts)
    plan = Plan(
        environment=world.environment,
        spec_digest=world.spec_digest,
        observation_digest=observation.digest,
        steps=tuple(steps),
        moves=moves,
    )
    planned = Planned(plan=plan, observation=observation, items=(item,))
    return Retirement(planned=planned, doomed=tuple(doomed), early=early)


async def _look(world: World, item: Wanted, kept: Kept) -> Facts:
    server, _ = await world.holder(kept.name).observe()
    if not server.get("reachable"):
        hint = server.get("hint")
        raise BackendUnavailable(str(server.get("problem")), hint=str(hint) if hint else None)
    facts, _ = await world.store(item, kept.name, frozenset(kept.slots)).observe()
    return facts


def _doomed(kept: Kept, found: Facts) -> Doomed:
    size = found.get("bytes")
    # A deletion or a rollback of ours that was cut off has changed it as well.
    ours = kept.retiring or found.get("state") in FINISHED
    present = bool(found.get("exists"))
    return Doomed(
        kept=kept,
        records=total(found, kept.slots),
        bytes=size if isinstance(size, int) else None,
        changed=present and not ours and kept.fingerprint != found.get("fingerprint"),
        drops=str(found["drops"]) if found.get("drops") else None,
    )


async def _refuse_serving(world: World, item: Wanted, kept: Kept) -> None:
    """Raises PlanRefused where the place serves a database of this spec, under whatever name."""
    store = world.store(item, kept.name, frozenset(kept.slots))
    doomed = await _addresses(store)
    away: set[str] = set()
    for other in world.wanted.values():
        with contextlib.suppress(SpecInvalid):
            for backend, slots in _served(world, other, kept):
                name = JSON if backend.type == JSON else backend.name
                there = {} if name in away else await _addresses(world.store(other, name, slots))
                if not there:
                    away.add(name)  # once is enough to wait for it
                same = shared(doomed, there) if there else _declared_alike(world, item, kept, backend, other)
                if same:
                    raise PlanRefused(
                        f'database "{item.database}": what is kept in "{kept.backend}" serves database '
                        f'"{other.database}" now ({same[0].value})',
                        hint="hybridrag status shows what serves what",
                    )


def _refuse_shared(world: World, item: Wanted, kept: Kept) -> None:
    """Raises PlanRefused where the place serves, or keeps, a database of another environment, by the notes in it."""
    found = world.located.get(item.database)
    words = found.claimed(kept.name, frozenset(kept.slots)) if found else None
    words = words or taken(world, item, world.holder(kept.name))
    if words is not None:
        where = (
            f'the folder "{item.path}"'
            if kept.name == JSON
            else f'workspace "{item.workspace}" in "{kept.backend}"'
        )
        raise PlanRefused(
            f'database "{item.database}": {where} also {words}; nothing was deleted',
            hint="hybridrag status, with --env of that environment, shows what it is to it",
        )


async def _refuse_only_copy(world: World, item: Wanted, kept: Kept, found: Facts, *, fewer: bool) -> None:
    """Raises where what serves cannot be seen, holds nothing, or is the same place under another name.

    Raises VerificationFailed where it holds fewer records of a stream than what is kept, unless `fewer` allows that.
    """
    serving = in_use(world.pointer.current(item.database))
    for name in dict.fromkeys(serving[slot] for slot in kept.slots):
        slots = frozenset(slot for slot in kept.slots if serving[slot] == name)
        backend = world.holder(name)
        server, _ = await backend.observe()
        if not server.get("reachable"):
            raise BackendUnavailable(
                f'backend "{backend.name}", which serves database "{item.database}", cannot be asked: '
                f"{server.get('problem')}; nothing was deleted",
                hint="hybridrag health",
            )
        facts, _ = await world.store(item, name, slots).observe()
        same = found.get("fingerprint") is not None and facts.get("fingerprint") == found.get("fingerprint")
        if same or (found.get("exists") and not facts.get("exists")):
            why = "is the same place as" if same else "holds nothing of it, unlike"
            raise PlanRefused(
                f'database "{item.database}": backend "{backend.name}", which serves it, {why} what is kept in '
                f'"{kept.backend}"; nothing was deleted',
                hint="hybridrag status shows what serves what",
            )
        if not fewer and (less := _fewer(facts, found, slots)):
            raise VerificationFailed(
                f'database "{item.database}": backend "{backend.name}", which serves it, holds less than what is kept in '
                f'"{kept.backend}": {", ".join(less)}; nothing was deleted',
                hint=f"hybridrag verify {item.database} tells what is gone, hybridrag repair {item.database} puts it back; "
                "if LightRAG was told to delete it: --allow other_data",
            )


def _fewer(serving: Facts, kept: Facts, slots: frozenset[Slot]) -> list[str]:
    """Streams of which what serves holds fewer records, in words."""
    counts = {
        name: (serving.get(f"records/{name}"), kept.get(f"records/{name}")) for name in streams_of(slots)
    }
    return [
        f"{there - here:,} of {there:,} {BY_NAME[name].title}"
        for name, (here, there) in counts.items()
        if isinstance(here, int) and isinstance(there, int) and here < there
    ]


def _served(world: World, other: Wanted, kept: Kept) -> Iterator[tuple[Backend, frozenset[Slot]]]:
    """The backends of the kept copy's engine that serve another database, each with those of its slots that it serves."""
    serving = world.serving(other)
    for backend in dict.fromkeys(serving.values()):
        slots = frozenset(slot for slot in kept.slots if serving[slot] is backend)
        if slots and backend.type == kept.type:
            yield backend, slots


async def _addresses(store: Store) -> Addresses:
    """Nothing for a server that does not answer."""
    try:
        return await store.addresses()
    except BackendUnavailable:
        return {}


def _declared_alike(world: World, item: Wanted, kept: Kept, backend: Backend, other: Wanted) -> list[Slot]:
    """For a server that cannot be asked: the slots whose place is the same by the spec's words."""
    if backend.type == JSON:
        return []
    config = world.holder(kept.name).registry_config(item.workspace)
    doomed = registered(kept.type, config)
    alike = doomed is not None and doomed == registered(
        backend.type, backend.registry_config(other.workspace)
    )
    return list(kept.slots) if alike else []
