"""Every server at once: does it answer, and what does it say of itself. Read-only; called by `status` and `health`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hybridrag.errors import HybridragError
from hybridrag.model.facts import Facts

from .world import World

PATIENCE_S = 20.0
Look = tuple[Facts, Facts]


async def health(world: World) -> dict[str, Look]:
    """(facts, details) of every declared backend, all at once."""
    return await servers_of(world, list(world.backends))


async def servers_of(world: World, names: Sequence[str]) -> dict[str, Look]:
    """(facts, details) of each; one that does not answer costs its time once."""

    async def ask(name: str) -> Look:
        kind = world.backend(name).type
        try:
            facts, details = await asyncio.wait_for(world.backend(name).observe(), PATIENCE_S)
            room = (
                await asyncio.wait_for(world.backend(name).room(), PATIENCE_S)
                if facts.get("reachable")
                else None
            )
            return facts, {**details, **(room.facts() if room else {})}
        except asyncio.TimeoutError:
            problem, hint = f'backend "{name}" did not answer within {PATIENCE_S:.0f} s', None
        except HybridragError as error:
            problem, hint = error.what, error.hint
        except OSError as error:
            problem, hint = f'backend "{name}" cannot be asked: {error}', None
        return {"type": kind, "reachable": False, "problem": problem, "hint": hint}, {}

    return dict(zip(names, await asyncio.gather(*map(ask, names)), strict=True))
