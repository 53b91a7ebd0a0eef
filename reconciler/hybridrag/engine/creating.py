"""A database that is to begin on a server: what is there already, and what stands in the way. Read-only."""

from __future__ import annotations

from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.model.marks import MarkState
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON

from .world import World


async def answers(world: World, item: Wanted) -> tuple[int, str]:
    """Records in the workspace that a new database gets, and words where LightRAG would not find them all."""
    (backend,) = {world.backend(place.name) for place in item.places}
    facts, _ = await backend.observe()
    if backend.type == JSON:
        return 0, ""
    if backend.provisioned and not facts.get("reachable"):
        if facts.get("change") == "refused":
            way_out = facts.get("way_out")
            raise BackendUnavailable(str(facts.get("refusal")), hint=str(way_out) if way_out else None)
        return 0, ""  # apply creates and starts it
    if problems := backend.problems(facts, item.embedding):
        raise problems[0]
    held, _ = await world.store(item, backend.name).observe()
    if held.get("refusal"):
        raise BackendUnavailable(str(held["refusal"]), hint=str(held.get("way_out")))
    if held.get("migration") and held.get("state") != MarkState.SWITCHED:
        raise PlanRefused(
            f'workspace "{item.workspace}" in backend "{item.backend}" holds the unfinished copy of another database',
            hint="give another --workspace",
        )
    records = sum(
        value for name, value in held.items() if name.startswith("records/") and isinstance(value, int)
    )
    return records, str(held.get("unsuffixed") or "")
