"""The plan that puts back what a serving database lost, from what is kept of it. Read-only; `actions.repair` does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybridrag.errors import NotFound, PlanRefused
from hybridrag.model.data import BY_NAME, Slot
from hybridrag.model.events import Emit
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.plan import Move, Plan, Step
from hybridrag.model.wanted import Wanted
from hybridrag.planner import Part, parts_of, store_thing
from hybridrag.planner.losses import lost_indexes
from hybridrag.planner.parts import canonical

from .kept import Kept, kept_of
from .locating import locate
from .planning import Planned
from .verifying import verify_database
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The plan, empty where nothing is to be done, and in words what would be put back and what cannot be."""

    planned: Planned
    words: tuple[str, ...]
    left: tuple[str, ...]


async def plan_repair(world: World, name: str, emit: Emit) -> Repair:
    """Raises PlanRefused or NotFound where nothing can be put back."""
    await locate(world)
    world.refuse_mislaid(world.database(name))
    world = world.as_it_is(world.database(name))
    item = world.database(name)
    parts = parts_of(item, world.pointer.current(name))
    words, left, moves = [], [], {}
    facts: dict[str, Facts] = {}
    for part in parts:
        kept, found = _kept(world, item, part), await _serving(world, item, part)
        facts[store_thing(name, canonical(part.target), part.slots)] = found
        words += [f"build the index again: {lost}" for lost in lost_indexes(found, part.slots)]
        words += [] if found.get("schema") else [f"create what is missing: {found.get('missing')}"]
        move = _move(world, item, part, kept)
        moves[move.id] = move
    broken = any(not found.get("schema") for found in facts.values())
    if not broken:
        try:
            report, _ = await verify_database(world, name, emit, thorough=False)
        except NotFound:
            report = None
        if report is not None and report.unknown_since:
            raise PlanRefused(
                f'database "{name}": what is kept of it was written after it was left, so what was lost cannot be told',
                hint=f"hybridrag verify {name} shows how it differs",
            )
        for stream, moved in (report.since if report else {}).items():
            title = BY_NAME[stream].title
            words += [f"put back {len(moved.lost):,} {title}"] if moved.lost else []
            words += [f"put back the vectors of {len(moved.blank):,} {title}"] if moved.blank else []
            beyond = moved.damaged - len(moved.mendable)
            left += [f"{beyond:,} {title} cannot be put right from what is kept"] if beyond else []
    steps = _steps(item, words) if words else ()
    observation = Observation(facts=facts)
    plan = Plan(
        environment=world.environment,
        spec_digest=world.spec_digest,
        observation_digest=observation.digest,
        steps=steps,
        moves=moves,
    )
    planned = Planned(plan=plan, observation=observation, items=(item,))
    return Repair(planned=planned, words=tuple(words), left=tuple(left))


def _kept(world: World, item: Wanted, part: Part) -> Kept | None:
    """The newest kept copy of exactly these slots that shows the state at the switch."""
    found = [
        each
        for each in kept_of(world.registry, item)
        if set(each.slots) == part.slots and each.fingerprint and not each.retiring
    ]
    return found[-1] if found else None


async def _serving(world: World, item: Wanted, part: Part) -> Facts:
    """What was observed of the serving place. Raises PlanRefused where it is no place to repair."""
    store = world.store(item, canonical(part.target), part.slots)
    facts, _ = await store.observe()
    if store.mending() is None:
        raise PlanRefused(
            f'database "{item.database}": files in backend "{part.target.name}" cannot be repaired one record at a time',
            hint=f"restore the file from a backup; or hybridrag rollback {item.database} --discard-new, where something is kept",
        )
    if not facts.get("exists") and not any(
        facts.get(f"records/{stream}")
        for stream in BY_NAME
        if isinstance(facts.get(f"records/{stream}"), int)
    ):
        raise PlanRefused(
            f'database "{item.database}": backend "{part.target.name}" holds nothing of it any more: {facts.get("missing")}',
            hint=f"restore it from a backup; or hybridrag rollback {item.database} --discard-new",
        )
    return facts


def _move(world: World, item: Wanted, part: Part, kept: Kept | None) -> Move:
    """From the kept copy to what serves. Without one, from the place to itself: it is looked at only."""
    source = kept.name if kept else canonical(part.target)
    return Move(
        id=f"{item.database}@{part.target.name}:{'+'.join(slot.value for slot in part.ordered)}",
        database=item.database,
        slots=tuple(slot for slot in Slot if slot in part.slots),
        source=source,
        target=world.holder(canonical(part.target)).name,
        workspace=item.workspace,
        fingerprint=str(kept.fingerprint) if kept else "",
        migration_id="",
    )


def _steps(item: Wanted, words: Sequence[str]) -> tuple[Step, ...]:
    """With its writer stopped meanwhile, where it has one that can be."""
    told = {
        "pause": (item.stopping, "nothing may be deleted while rows are put back"),
        "repair": ("; ".join(words), "what serves lost it, and it is kept"),
        "resume": ("start the writer again", "the pause ends with the repair, or with a failure"),
    }
    verbs = [verb for verb in told if verb == "repair" or item.pausable]
    return tuple(
        Step(
            id=f"{verb}.{item.database}",
            verb=verb,
            target=item.database,
            summary=told[verb][0],
            reason=told[verb][1],
            depends_on=(f"{verbs[index - 1]}.{item.database}",) if index else (),
        )
        for index, verb in enumerate(verbs)
    )
