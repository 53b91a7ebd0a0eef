"""Back to what was kept, leaving behind what was written since: only the registry changes. The plan is made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybridrag.errors import BackendUnavailable, HybridragError, NotFound, PlanRefused
from hybridrag.model.data import streams_of
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.plan import Move, Plan, Step
from hybridrag.model.wanted import Wanted
from hybridrag.planner import in_use, store_thing
from hybridrag.planner.completeness import counted
from hybridrag.planner.embedding import without_vectors
from hybridrag.planner.parts import names

from .kept import Kept
from .locating import locate
from .planning import Planned
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """The plan, and in words what stays behind."""

    planned: Planned
    words: tuple[str, ...]


async def plan_discard(world: World, item: Wanted, back: Sequence[Kept]) -> Discard:
    """Read-only. Raises PlanRefused where a kept copy is not complete and as it was when it was left."""
    await locate(world)
    world.refuse_mislaid(item, settling=True)
    serving = in_use(world.pointer.current(item.database))
    moves: dict[str, Move] = {}
    facts: dict[str, Facts] = {}
    words: list[str] = []
    for kept in back:
        sources = {serving[slot] for slot in kept.slots}
        if len(sources) != 1:
            raise PlanRefused(
                f'database "{item.database}": what is kept in "{kept.backend}" lies on several backends now',
                hint=f"hybridrag rollback {item.database} carries the records over",
            )
        source = sources.pop()
        found = await _usable(world, item, kept)
        now = await _now(world, item, source, kept)
        move = Move(
            id=f"{item.database}@{kept.name}",
            database=item.database,
            slots=kept.slots,
            source=source,
            target=world.holder(kept.name).name,
            workspace=item.workspace,
            fingerprint=str(kept.fingerprint),
            migration_id="",
        )
        moves[move.id] = move
        facts[store_thing(item.database, kept.name, kept.slots)] = found
        words.append(_behind(world.holder(source).name, kept, found, now))
    names = " and ".join(kept.shown for kept in back)
    steps = _steps(item, f"point the registry at backend {names} again")
    observation = Observation(facts=facts)
    plan = Plan(
        environment=world.environment,
        spec_digest=world.spec_digest,
        observation_digest=observation.digest,
        steps=steps,
        moves=moves,
    )
    return Discard(planned=Planned(plan=plan, observation=observation, items=(item,)), words=tuple(words))


def _steps(item: Wanted, summary: str) -> tuple[Step, ...]:
    """With its writer stopped meanwhile, where it has one that can be."""
    told = {
        "pause": (item.stopping, "nobody may write while the pointer changes"),
        "point_back": (summary, "the way back without what was written since was asked for"),
        "resume": ("start the writer again", "the pause ends with the change, or with a failure"),
    }
    verbs = [verb for verb in told if verb == "point_back" or item.pausable]
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


async def _usable(world: World, item: Wanted, kept: Kept) -> Facts:
    backend = world.holder(kept.name)
    server, _ = await backend.observe()
    if not server.get("reachable"):
        hint = server.get("hint")
        raise BackendUnavailable(str(server.get("problem")), hint=str(hint) if hint else None)
    facts, _ = await world.store(item, kept.name, frozenset(kept.slots)).observe()
    carry = f"hybridrag rollback {item.database} carries the present records over instead"
    if not facts.get("exists"):
        raise NotFound(
            f'database "{item.database}": what was kept in "{kept.backend}" is gone: {facts.get("missing")}',
            hint=carry,
        )
    damaged = next((name for name in facts if name.startswith("damaged/")), None)
    if damaged is not None:
        raise PlanRefused(
            f'database "{item.database}": "{damaged[8:]}" kept in "{kept.backend}" is damaged: {facts[damaged]}',
            hint=carry,
        )
    if kept.fingerprint is None or facts.get("fingerprint") != kept.fingerprint:
        why = "was changed since it was left" if kept.fingerprint else "was left in a state that nobody noted"
        raise PlanRefused(f'database "{item.database}": what is kept in "{kept.backend}" {why}', hint=carry)
    if lost := without_vectors(counted(facts, kept.slots)):
        raise PlanRefused(
            f'database "{item.database}": what is kept in "{kept.backend}" holds {" and ".join(lost)}, so searches would '
            "find none of them",
            hint=carry,
        )
    if facts.get("unfinished_writes"):
        raise PlanRefused(
            f'somebody is writing what is kept in "{kept.backend}": {facts["unfinished_writes"]}',
            hint="stop the LightRAG process that writes it, then run the command again",
        )
    return facts


async def _now(world: World, item: Wanted, source: str, kept: Kept) -> Facts | None:
    """What serves now; None where it cannot be told, which is no reason to stay on it."""
    try:
        facts, _ = await world.store(item, source, frozenset(kept.slots)).observe()
    except (HybridragError, OSError):
        return None
    return facts


def _behind(source: str, kept: Kept, found: Facts, now: Facts | None) -> str:
    some = f" ({names(kept.slots)})" if names(kept.slots) else ""
    since = f"{kept.since:%Y-%m-%d %H:%M}Z"
    if now is None:
        return f'what was written to "{source}"{some} since {since} stays behind; how much cannot be told'
    apart = []
    for name in streams_of(kept.slots):
        here, there = (facts.get(f"records/{name}") or 0 for facts in (now, found))
        if here != there and isinstance(here, int) and isinstance(there, int):
            apart.append(f"{here - there:+,} {name}")
    counted = ", ".join(apart) or "no counts differ, contents may"
    return f'what was written to "{source}"{some} since {since} stays behind: {counted}'
