"""Drift: what moved since the last apply. What LightRAG wrote is normal; what was lost, or changed otherwise, is not. Read-only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hybridrag.errors import HybridragError, NotFound
from hybridrag.migrate.since import Moved
from hybridrag.migrate.verifying import Report
from hybridrag.model.data import BY_NAME
from hybridrag.model.events import Emit
from hybridrag.model.wanted import Wanted
from hybridrag.planner import parts_of
from hybridrag.planner.losses import lost_indexes
from hybridrag.planner.parts import canonical

from .kept import kept_of
from .status import DatabaseStatus, status
from .unsound import moved_words
from .verifying import verify_database
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One database. `written`: what is as it should be; `damaged`: what is not; both in words.

    `compared`: with a kept copy that shows the state at the last apply; `since` says what became of each stream then.
    `hint`: the next command where something is damaged.
    """

    database: str
    backend: str
    compared: bool = False
    written: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    since: Mapping[str, Moved] = field(default_factory=dict)
    hint: str | None = None


async def drift(world: World, names: Iterable[str], emit: Emit) -> list[Drift]:
    """Of each database, in the spec's order; one that cannot be looked at does not hide the others."""
    looked = await status(world, names)
    return [await _of(world, world.database(each.database), each, emit) for each in looked.databases]


async def _of(world: World, item: Wanted, seen: DatabaseStatus, emit: Emit) -> Drift:
    name, backend = item.database, seen.backend
    if seen.health == "error":
        return Drift(database=name, backend=backend, damaged=seen.problems, hint=seen.hint)
    try:
        here = world.as_it_is(item)
        report, _ = await verify_database(here, name, emit, thorough=False)
        indexes = await _indexes(here, here.database(name))
    except NotFound:
        # It never moved, or nothing is kept of it: numbers are all that tells.
        return Drift(database=name, backend=backend, damaged=seen.problems, hint=seen.hint)
    except HybridragError as error:
        return Drift(database=name, backend=backend, damaged=(error.what,), hint=error.hint)
    damaged = (*_damage(report), *indexes)
    return Drift(
        database=name,
        backend=backend,
        compared=not report.unknown_since,
        written=_written(report),
        damaged=damaged,
        since=report.since,
        hint=_hint(world, item, report, indexes) if damaged else None,
    )


async def _indexes(world: World, item: Wanted) -> tuple[str, ...]:
    found: list[str] = []
    for part in parts_of(item, world.pointer.current(item.database)):
        facts, details = await world.store(item, canonical(part.target), part.slots).observe()
        found += lost_indexes({**details, **facts}, part.slots)
    return tuple(found)


def _written(report: Report) -> tuple[str, ...]:
    documents = report.since.get("doc_status", Moved())
    found = []
    if documents.written:
        found.append(f"{documents.written:,} documents written since the last apply")
    if documents.removed:
        found.append(f"{documents.removed:,} documents deleted since the last apply")
    elif gone := sum(report.since[name].removed for name in ("nodes", "edges") if name in report.since):
        found.append(f"{gone:,} nodes and edges removed one by one since the last apply")
    if not found and report.moved_on:
        found.append(f"{moved_words(report.since)} records since the last apply")
    return tuple(found)


def _damage(report: Report) -> tuple[str, ...]:
    if report.unknown_since:
        kept = " and ".join(f'"{name}"' for name in dict.fromkeys(report.unknown_since))
        apart = report.missing + report.extra + report.different
        return (
            f"{apart:,} records differ from what is kept in {kept}, which was written since it was left",
        ) * bool(apart)
    found = []
    for name, moved in report.since.items():
        title = BY_NAME[name].title
        counts = {
            f"{title} are gone": len(moved.lost),
            f"{title} have no vector any more": len(moved.blank | moved.torn),
            f"{title} were changed by something else than LightRAG": len(moved.spoiled),
            f"{title} belong to nothing that is there": len(moved.extra),
        }
        found += [f"{count:,} {words}" for words, count in counts.items() if count]
    broken = [] if found else [*report.broken_rules, *report.wrong]
    return (*found, *broken)


def _hint(world: World, item: Wanted, report: Report, indexes: tuple[str, ...]) -> str:
    if report.unknown_since:
        return f"hybridrag verify {item.database}"
    if not indexes and not any(moved.mendable for moved in report.since.values()):
        return f"hybridrag verify {item.database}"
    kept = kept_of(world.registry, item)
    where = " and ".join(dict.fromkeys(each.backend for each in kept))
    until = f" (it is in {where}, kept until {min(each.until for each in kept):%Y-%m-%d})" if kept else ""
    return f"hybridrag repair {item.database}{until}"
