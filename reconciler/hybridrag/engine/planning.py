"""Observe, then plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hybridrag.model.facts import Observation
from hybridrag.model.plan import Plan
from hybridrag.model.wanted import Wanted
from hybridrag.planner import in_use, make_plan
from hybridrag.planner.protect import kept_by

from .observing import Seen, observe
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, the world it was made from, and the databases it is about."""

    plan: Plan
    observation: Observation
    items: tuple[Wanted, ...]


async def plan_world(world: World, targets: Iterable[str] = (), exclude: Iterable[str] = ()) -> Planned:
    """Read-only: what would be done. Raises what stands in the way."""
    items = world.chosen(targets, exclude)
    return plan_seen(world, items, await observe(world, items))


def plan_seen(world: World, items: Sequence[Wanted], seen: Seen) -> Planned:
    """The plan for what was observed; the same for the same. Raises what stands in the way."""
    # Of all databases: a plan for one of them may touch the server of another.
    serving = {name: set(in_use(world.pointer.current(name)).values()) for name in world.wanted}
    kept = kept_by((item, serving[name]) for name, item in world.wanted.items())
    plan = make_plan(
        world.environment, world.spec_digest, items, seen.observation, seen.problems, kept, seen.found
    )
    plan = replace(plan, warnings=(*plan.warnings, *seen.late))
    return Planned(plan=plan, observation=seen.observation, items=tuple(items))
