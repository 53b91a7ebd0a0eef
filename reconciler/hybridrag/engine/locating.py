"""What serves each database, as the places themselves say it: read here, before anything is planned, shown or changed.

The registry of the state folder is a cache: another clone, another machine or a deleted state folder see the same. Called by
everything that needs to know what serves; writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybridrag.errors import HybridragError
from hybridrag.journal import RegistryEntry, facts_of
from hybridrag.journal.placement import Placement, note_name, read_placement
from hybridrag.model.notes import Notes
from hybridrag.model.ports import Store
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON, in_use

from .serving import Claim, Located, Seen, settle
from .world import World

PATIENCE_S = 20.0


@dataclass(slots=True)
class _Asked:
    """The answers: notes by database and place (as facts name it); `unknown` places could not be asked, with the reason."""

    notes: dict[str, dict[str, Notes]] = field(default_factory=dict)
    unknown: dict[str, dict[str, str]] = field(default_factory=dict)


async def locate(world: World, items: Iterable[Wanted] | None = None) -> None:
    """Ask every place that the spec knows for its notes on these databases, and keep what they say in `world.located`.

    A backend that does not answer is noted as unknown; it hides nothing of the others. Read-only.
    """
    chosen = list(world.wanted.values() if items is None else items)
    asked = _Asked()
    known = world.registry.file().databases
    await asyncio.gather(*(_ask_files(world, item, asked) for item in chosen))
    # Places that are named anywhere; where none of them tells, all that the spec knows.
    for likely in (True, False):
        questions: dict[str, list[Wanted]] = {}
        for item in chosen:
            for name in _to_ask(world, item, known.get(item.database), asked, likely=likely):
                questions.setdefault(name, []).append(item)
        await asyncio.gather(*(_ask_server(world, name, group, asked) for name, group in questions.items()))
    for item in chosen:
        world.located[item.database] = _located(world, item, known.get(item.database), asked)


def _to_ask(
    world: World, item: Wanted, known: RegistryEntry | None, asked: _Asked, *, likely: bool
) -> list[str]:
    """Servers that were not asked about a database yet, and should be."""
    servers = {name for name, backend in world.backends.items() if backend.type != JSON}
    done = {*asked.notes.get(item.database, {}), *asked.unknown.get(item.database, {})}
    entries = [*_entries(world, item, asked), *([known] if known and known.revision else [])]
    named = {name for entry in entries for name in in_use(facts_of(entry)).values()}
    if likely:
        named |= {place.name for place in item.places} | {
            kept.backend for one in entries for kept in one.kept
        }
        named |= {*in_use(facts_of(known)).values()} if known else set()
    elif not entries or named - servers - {JSON}:  # nothing tells, or by a name that another spec has for it
        named = servers
    return sorted((named & servers) - done)


def _entries(world: World, item: Wanted, asked: _Asked) -> list[RegistryEntry]:
    """What the notes of a database that were found so far say; those that cannot be read are told later."""
    mine = note_name(world.environment, item.database)
    found = []
    for place, notes in asked.notes.get(item.database, {}).items():
        if mine in notes:
            with contextlib.suppress(HybridragError):
                found.append(read_placement(mine, notes[mine], place).entry)
    return found


async def _ask_files(world: World, item: Wanted, asked: _Asked) -> None:
    if not Path(item.path).is_dir():
        asked.unknown.setdefault(item.database, {})[JSON] = f'the folder "{item.path}" does not exist'
        return
    try:
        (notes,) = await world.store(item, JSON).notes()
    except HybridragError as error:
        asked.unknown.setdefault(item.database, {})[JSON] = str(error)
        return
    asked.notes.setdefault(item.database, {})[JSON] = notes


async def _ask_server(world: World, name: str, items: Sequence[Wanted], asked: _Asked) -> None:
    if not items:
        return
    try:
        stores: list[Store] = [world.store(item, name, world.backend(name).serves) for item in items]
        found = await asyncio.wait_for(stores[0].notes(stores[1:]), PATIENCE_S)
    except (HybridragError, OSError, asyncio.TimeoutError) as error:
        why = error.what if isinstance(error, HybridragError) else "it did not answer"
        for item in items:
            asked.unknown.setdefault(item.database, {})[name] = why
        return
    for item, notes in zip(items, found, strict=True):
        asked.notes.setdefault(item.database, {})[name] = notes


def _located(world: World, item: Wanted, known: RegistryEntry | None, asked: _Asked) -> Located:
    mine = note_name(world.environment, item.database)
    own: dict[str, Placement] = {}
    claims: dict[str, tuple[Claim, ...]] = {}
    try:
        for place, notes in asked.notes.get(item.database, {}).items():
            shown = f'the folder "{item.path}"' if place == JSON else f'backend "{place}"'
            read = {name: read_placement(name, note, shown) for name, note in notes.items()}
            if mine in read:
                own[place] = read.pop(mine)
            claims[place] = tuple(_claim(world, each) for each in read.values() if each.serving or each.kept)
    except HybridragError as error:
        return Located(entry=known, contradiction=error.what, remedy=error.hint)
    seen = Seen(
        own=own,
        unknown=asked.unknown.get(item.database, {}),
        backends={JSON, *(name for name, backend in world.backends.items() if backend.type != JSON)},
        registry=known,
        path=item.path,
        has_files=_has_files(item),
    )
    found = settle(item.database, seen)
    return found.with_claims(claims).at(_addresses(world, item, own))


def _has_files(item: Wanted) -> bool:
    folder = Path(item.path)
    return folder.is_dir() and any(folder.glob("kv_store_*.json"))


def _claim(world: World, note: Placement) -> Claim:
    return Claim(
        environment=note.environment,
        database=note.database,
        serving=frozenset(note.serving),
        kept=frozenset(note.kept),
        neighbour=note.environment != world.environment,
    )


def _addresses(world: World, item: Wanted, own: Mapping[str, Placement]) -> dict[str, dict[str, object]]:
    """`backend_config` as the spec has it, of the places that have a note of their own."""
    found: dict[str, dict[str, object]] = {}
    for name in own:
        if name != JSON:
            try:
                found[name] = world.backend(name).registry_config(item.workspace)
            except HybridragError:
                continue
    return found
