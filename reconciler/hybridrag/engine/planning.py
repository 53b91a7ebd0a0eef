"""Observe, then plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hybridrag.model.facts import Observation
from hybridrag.model.plan import Plan
from hybridrag.model.wanted import Wanted
from hybridrag.planner import in_use, make_plan
from hybridrag.planner.protect import kept_by

from .observing import observe
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
    seen = await observe(world, items)
    # Of all databases: a plan for one of them may touch the server of another.
    serving = {name: set(in_use(world.pointer.current(name)).values()) for name in world.wanted}
    kept = kept_by((item, serving[name]) for name, item in world.wanted.items())
    plan = make_plan(world.environment, world.spec_digest, items, seen.observation, seen.problems, kept)
    return Planned(plan=plan, observation=seen.observation, items=tuple(items))
