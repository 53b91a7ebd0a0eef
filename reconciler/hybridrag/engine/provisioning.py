"""Plan the provisioning of one server that no database needs to name."""

from __future__ import annotations

from hybridrag.model.facts import Facts, Observation
from hybridrag.model.wanted import Place
from hybridrag.planner import provision_plan

from .planning import Planned
from .world import World


async def plan_server(world: World, name: str) -> tuple[Planned, Facts]:
    """(plan, facts of the server); read-only. Raises NotFound, or BackendUnavailable where it cannot be made."""
    backend = world.backend(name)
    facts, details = await backend.observe()
    thing = f"backend/{name}"
    observation = Observation(facts={thing: facts}, details={thing: details})
    place = Place(name=name, type=backend.type, provisioned=True, serves=backend.serves)
    plan = provision_plan(world.environment, world.spec_digest, place, observation)
    return Planned(plan=plan, observation=observation, items=()), facts
