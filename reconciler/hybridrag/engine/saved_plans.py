"""A saved plan and the world as it is now: carried out as it was saved, stale, or applied already. Read-only."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from hybridrag.errors import HybridragError, PlanRefused
from hybridrag.journal import run_of_plan
from hybridrag.planner import PlanFile, in_use, refuse_if_other, refuse_if_stale

from .observing import observe
from .planning import Planned, plan_seen
from .world import World


async def plan_as_saved(world: World, file: PlanFile) -> Planned:
    """The saved plan, made anew for what is observed now. Raises PlanRefused where it is another one, or was applied."""
    items = world.chosen(file.databases) if file.databases else []
    seen = await observe(world, items)
    live = [item.database for item in items if item.pausable]
    try:
        refuse_if_stale(file, world.spec_digest, seen.observation, live)
    except PlanRefused as stale:
        raise _applied_already(world, file) or stale from None
    planned = plan_seen(world, items, seen)
    refuse_if_other(file, planned.plan, live)
    # The run is noted as one of this very plan, also where a writer went on since it was made.
    plan = replace(planned.plan, observation_digest=file.observation_digest)
    return replace(planned, plan=plan)


def _applied_already(world: World, file: PlanFile) -> PlanRefused | None:
    """In words that the plan was carried out before: by the journal, or as it is seen. None where it was not."""
    with contextlib.suppress(HybridragError):  # a damaged journal tells nothing; what is observed does
        run = (
            run_of_plan(world.journal_path, file.spec_digest, file.observation_digest) if file.steps else None
        )
        if run is not None:
            return PlanRefused(
                f"the plan was applied already, by run {run.id} ({run.who}, {_day(run.started)})",
                hint=f"hybridrag show {run.id}; what is left to do: hybridrag plan",
            )
    if file.spec_digest != world.spec_digest or not file.moves:
        return None
    done = [
        _served_since(world, move.database) for move in file.moves.values() if _is_done(world, file, move.id)
    ]
    if len(done) < len(file.moves):
        return None
    return PlanRefused(
        f"the plan was applied already: {', '.join(dict.fromkeys(done))}",
        hint="what is left to do: hybridrag plan",
    )


def _is_done(world: World, file: PlanFile, name: str) -> bool:
    move = file.moves[name]
    current = in_use(world.pointer.current(move.database))
    return all(world.holder(current[slot]).name == move.target for slot in move.slots)


def _served_since(world: World, database: str) -> str:
    found = world.located[database]
    targets = dict.fromkeys(backend.name for backend in world.serving(world.database(database)).values())
    since = f" since {_day(found.switched.timestamp())}" if found.switched else ""
    by = f" (run {found.run})" if found.run else ""
    return f'"{database}" is served by {" and ".join(targets)}{since}{by}'


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
