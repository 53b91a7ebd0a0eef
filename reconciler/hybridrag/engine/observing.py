"""Observe: look at everything a set of databases touches, at once, with a time limit, writing nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from hybridrag.errors import HybridragError, SpecInvalid
from hybridrag.journal import open_pauses
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.ports import Backend
from hybridrag.model.room import Room
from hybridrag.model.wanted import Wanted

from .world import RegistryPointer, World

STORE_TIMEOUT_S = 60.0
ROOM_TIMEOUT_S = 5.0
AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was observed, and why a wanted backend could not take a database (by database)."""

    observation: Observation
    problems: dict[str, list[HybridragError]]


async def observe(world: World, items: Sequence[Wanted]) -> Seen:
    """Facts of every backend and store that these databases use or want."""
    pointer = RegistryPointer(world.registry.held())
    facts: dict[str, Facts] = {}
    details: dict[str, Facts] = {}
    current = {item.database: pointer.current(item.database) for item in items}
    names = {item.backend for item in items}
    names |= {str(entry["backend"]) for entry in current.values() if entry.get("backend") in world.backends}
    gate = asyncio.Semaphore(AT_ONCE)

    async def look(thing: str, question: Awaitable[tuple[Facts, Facts]]) -> None:
        async with gate:
            facts[thing], details[thing] = await _limited(thing, question)

    async def look_room(thing: str, backend: Backend) -> None:
        # One that does not answer would keep us waiting once more.
        if facts[thing].get("reachable") or backend.provisioned:
            with contextlib.suppress(asyncio.TimeoutError):
                room = await asyncio.wait_for(backend.room(), ROOM_TIMEOUT_S)
                details[thing] = {**details[thing], **(room.facts() if room else {})}

    await asyncio.gather(*(look(f"backend/{name}", world.backend(name).observe()) for name in sorted(names)))
    rooms = [look_room(f"backend/{name}", world.backend(name)) for name in sorted(names)]
    await asyncio.gather(*rooms)
    if (room := Room.holding(world.state)) is not None:
        details["state"] = room.facts()
    questions = []
    problems: dict[str, list[HybridragError]] = {}
    for item in items:
        in_use = current[item.database].get("backend")
        if in_use in (None, world.files.name):
            questions.append(look(f"store/{item.database}@json", world.source_store(item).observe()))
        for name in sorted({item.backend, str(in_use)} & world.backends.keys()):
            backend = world.backend(name)
            if backend.type == "json" or not facts[f"backend/{name}"].get("reachable"):
                continue
            questions.append(look(f"store/{item.database}@{name}", world.store(item, name).observe()))
        problems[item.database] = world.backend(item.backend).problems(
            facts[f"backend/{item.backend}"], item.embedding
        )
    await asyncio.gather(*questions)
    for item in items:
        facts[f"registry/{item.database}"] = _registry_facts(world, pointer, item, current[item.database])
    for name in set(open_pauses(world.journal_path)) & current.keys():
        facts[f"journal/{name}"] = {"paused": True}
    return Seen(observation=Observation(facts=facts, details=details), problems=problems)


def _registry_facts(world: World, pointer: RegistryPointer, item: Wanted, entry: Facts) -> Facts:
    drifted = None
    if entry.get("backend") == item.backend:
        # A backend whose place cannot be resolved says so in its own facts.
        with contextlib.suppress(SpecInvalid):
            backend = world.backend(item.backend)
            drifted = not pointer.agrees(item.database, item.path, backend, item.workspace) or None
    return {**entry, "drifted": drifted}


async def _limited(thing: str, question: Awaitable[tuple[Facts, Facts]]) -> tuple[Facts, Facts]:
    """An answer, or the fact that there was none; one broken thing must not hide the others."""
    try:
        return await asyncio.wait_for(question, STORE_TIMEOUT_S)
    except asyncio.TimeoutError:
        problem, hint = f"{thing} did not answer within {STORE_TIMEOUT_S:.0f} s", None
    except HybridragError as error:
        problem, hint = error.what, error.hint
    except OSError as error:
        problem, hint = f"{thing} cannot be read: {error}", None
    return {"reachable": False, "exists": False, "problem": problem, "hint": hint}, {}
