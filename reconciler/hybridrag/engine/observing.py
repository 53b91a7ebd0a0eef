"""Observe: look at everything a set of databases touches, at once, with a time limit, writing nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field

from hybridrag.errors import HybridragError, SpecInvalid
from hybridrag.journal import begun_switches, open_pauses, refusals, served_counts
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.ports import Backend
from hybridrag.model.room import Room
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON, Part, parts_of, store_thing
from hybridrag.planner.refused import Found

from .embedding import observe_settings
from .late import late_writes, settings_hint
from .locating import locate
from .pointer import RegistryPointer
from .taken import taken
from .world import World

STORE_TIMEOUT_S = 60.0
ROOM_TIMEOUT_S = 5.0
AT_ONCE = 8
VOLATILE = (
    "records/",
    "bytes",
    "fingerprint",
    "unfinished_writes",
    "blank/",
    "unindexed/",
    "other/",
    "unknown/",
)
"""Facts of a store that only inform while nothing moves: a writer at work must not make every plan stale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was observed, and why a wanted backend could not take a database (by database and backend).

    `found`: by earlier runs, which what is observed now may outdate.
    """

    observation: Observation
    problems: dict[tuple[str, str], list[HybridragError]]
    found: Found = field(default_factory=Found)
    late: tuple[str, ...] = ()
    """Warnings of kept files that somebody still writes."""


async def observe(world: World, items: Sequence[Wanted]) -> Seen:
    """Facts of every backend and store that these databases use or want."""
    await locate(world, items)
    pointer = world.pointer.held()
    facts: dict[str, Facts] = {}
    details: dict[str, Facts] = {}
    current = {item.database: world.pointer.current(item.database) for item in items}
    parts = {item.database: parts_of(item, current[item.database]) for item in items}
    names = {part.target.name for each in parts.values() for part in each}
    names |= {part.source for each in parts.values() for part in each if part.source in world.backends}
    gate = asyncio.Semaphore(AT_ONCE)

    async def look(thing: str, question: Awaitable[tuple[Facts, Facts]], *, decides: bool = True) -> None:
        async with gate:
            found, more = await _limited(thing, question)
        informing = {} if decides else {k: v for k, v in found.items() if k.startswith(VOLATILE)}
        facts[thing] = {k: v for k, v in found.items() if k not in informing}
        details[thing] = {**more, **informing}

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

    async def look_settings(item: Wanted) -> None:
        async with gate:
            details[f"embedding/{item.database}"] = await observe_settings(world, item)

    questions = [look_settings(item) for item in items]
    problems: dict[tuple[str, str], list[HybridragError]] = {}
    for item in items:
        for part in parts[item.database]:
            for name in _ends(part):
                if name != JSON and not facts.get(f"backend/{name}", {}).get("reachable"):
                    continue
                thing = store_thing(item.database, name, part.slots)
                store = world.store(item, name, part.slots)
                questions.append(look(thing, store.observe(), decides=not part.in_place))
            target = part.target.name
            problems[item.database, target] = world.backend(target).problems(
                facts[f"backend/{target}"], item.embedding
            )
    await asyncio.gather(*questions)
    for item in items:
        facts[f"registry/{item.database}"] = _registry_facts(
            world, pointer, item, parts[item.database], current[item.database], facts
        )
    paused, switching = open_pauses(world.journal_path), begun_switches(world.journal_path)
    for name in {*paused, *switching} & current.keys():
        facts[f"journal/{name}"] = {"paused": name in paused or None} | {
            f"switching/{migration}": True for migration in switching.get(name, ())
        }
    found = Found(refusals(world.journal_path), served_counts(world.journal_path))
    late = [
        f"{words}; {settings_hint(item.database)}"
        for item in items
        for words in await late_writes(world, item)
    ]
    observation = Observation(facts=facts, details=details)
    return Seen(observation=observation, problems=problems, found=found, late=tuple(late))


def _ends(part: Part) -> list[str]:
    """The one or two backends of a part, by the names that stand in facts."""
    target = JSON if part.target.type == JSON else part.target.name
    return list(dict.fromkeys((part.source, target)))


def _registry_facts(
    world: World,
    pointer: RegistryPointer,
    item: Wanted,
    parts: Sequence[Part],
    entry: Facts,
    facts: Mapping[str, Facts],
) -> Facts:
    """The entry, whether it tells another address of the place in use than the spec, and whose the wanted place is."""
    drifted = None
    if all(part.in_place for part in parts) and (entry.get("backend") or entry.get("slot/kv")):
        placement = {slot: world.backend(place.name) for slot, place in item.placement.items()}
        # A backend whose place cannot be resolved says so in its own facts.
        with contextlib.suppress(SpecInvalid):
            drifted = not pointer.agrees(item.database, item.path, placement, item.workspace) or None
    for part in parts:
        name = JSON if part.target.type == JSON else part.target.name
        held = facts.get(store_thing(item.database, name, part.slots), {})
        if not part.in_place and (held.get("exists") or held.get("foreign_vectors")):
            entry = {**entry, **_others(world, item, part, name)}
    # A drift is a change of address; this is another place, where nothing would be found.
    mislaid = pointer.mislaid(item.database, kept=True)
    lost = {"mislaid": mislaid.what, "way_out": mislaid.hint} if mislaid else {}
    return {**entry, "drifted": drifted, **lost}


def _others(world: World, item: Wanted, part: Part, name: str) -> Facts:
    """Who else is in the place that a part is to go to: by the notes there, and by the registries beside ours."""
    found = world.located.get(item.database)
    noted = found.claimed(name, part.slots) if found else None
    known = taken(world, item, world.backend(part.target.name))
    serving = found.claimed(name, part.slots, serving=True) if found else None
    if serving is None and known is not None and known.startswith("serves "):
        serving = known
    return {f"taken/{name}": noted or known, f"serves_other/{name}": serving}


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
