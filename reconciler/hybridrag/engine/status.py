"""Status: what each database uses now, its size and health, and the last run. Read-only, and quick at any size."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hybridrag.errors import HybridragError
from hybridrag.journal import (
    ProgressRecord,
    RunRecord,
    is_running,
    last_run,
    open_pauses,
    progress,
)
from hybridrag.model.facts import Facts
from hybridrag.model.ports import Glance, Store
from hybridrag.model.wanted import Thresholds, Wanted

from .world import World

PATIENCE_S = 20.0
Look = tuple[Facts, Facts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A move that runs, or did not come to its end: `state` is running, interrupted or failed.

    `rate` is records per second, `eta_s` seconds; None while unknown. `total` is 0 where nothing is counted.
    """

    state: str
    step: str
    phase: str
    records: int
    total: int
    bytes: int
    rate: float | None
    eta_s: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatus:
    """One database. `health` is healthy, degraded or error; `problems` say why.

    `records` by namespace, None where not known; those in `estimated` are estimates. `size` is in bytes: all files,
    or the whole database of the server that serves it; `sizes` by file. `hint`: what to do about a server that is down. `oversized` names what is above the
    thresholds, "" for the total. `move_to`: the backend to move it to because of that, None when there is none.
    """

    database: str
    backend: str
    backend_type: str
    wanted: str
    health: str
    problems: tuple[str, ...]
    hint: str | None
    connected: bool
    latency_ms: float | None
    records: Mapping[str, int | None]
    estimated: frozenset[str]
    size: int | None
    sizes: Mapping[str, int]
    thresholds: Thresholds
    oversized: tuple[str, ...]
    move_to: str | None
    migration: Migration | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """One backend that is used or wanted."""

    name: str
    type: str
    facts: Facts
    details: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The whole answer. `running`: an apply holds the lease right now."""

    environment: str
    databases: tuple[DatabaseStatus, ...]
    backends: tuple[BackendStatus, ...]
    last_run: RunRecord | None
    running: bool
    paused: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a database is now."""

    item: Wanted
    backend: str
    type: str


async def status(world: World, names: Iterable[str] = ()) -> Status:
    """Look at everything; nothing that is broken hides the rest, and a dead server costs its time once."""
    places = _places(world, world.chosen(names))
    wanted = {place.item.backend for place in places} | {place.backend for place in places}
    files = [place for place in places if place.type == "json"]
    servers, in_files = await asyncio.gather(
        _servers(world, sorted(wanted & world.backends.keys())),
        asyncio.gather(*(_asked([world.source_store(place.item)]) for place in files)),
    )
    serving = {place.item.database: found[0] for place, found in zip(files, in_files, strict=True)}
    targets = await _on_servers(world, places, servers, serving)
    live = is_running(world.journal_path)
    records = progress(world.journal_path)
    move_to = next((name for name, backend in world.backends.items() if backend.type != "json"), None)
    databases = []
    for place in places:
        name = place.item.database
        databases.append(
            _database(
                place,
                serving.get(name) or _unanswered(place, servers),
                servers.get(place.backend, ({}, {})),
                place.item.backend if place.item.backend_type != "json" else move_to,
                _migration(place, records.get(name), targets.get(name), live),
            )
        )
    return Status(
        environment=world.environment,
        databases=tuple(databases),
        backends=tuple(
            BackendStatus(name=name, type=world.backend(name).type, facts=facts, details=details)
            for name, (facts, details) in servers.items()
        ),
        last_run=last_run(world.journal_path),
        running=live,
        paused=tuple(open_pauses(world.journal_path)),
    )


async def health(world: World) -> dict[str, Look]:
    """(facts, details) of every declared backend, all at once."""
    return await _servers(world, list(world.backends))


def _places(world: World, items: Sequence[Wanted]) -> list[_Place]:
    entries = world.registry.read().databases
    found = []
    for item in items:
        entry = entries.get(item.database)
        name = entry.backend if entry is not None and entry.backend else world.files.name
        known = world.backends.get(name)
        kind = known.type if known else entry.backend_type if entry is not None else "json"
        found.append(_Place(item=item, backend=name, type=kind))
    return found


async def _servers(world: World, names: Sequence[str]) -> dict[str, Look]:
    async def ask(name: str) -> Look:
        kind = world.backend(name).type
        try:
            return await asyncio.wait_for(world.backend(name).observe(), PATIENCE_S)
        except asyncio.TimeoutError:
            problem, hint = f'backend "{name}" did not answer within {PATIENCE_S:.0f} s', None
        except HybridragError as error:
            problem, hint = error.what, error.hint
        except OSError as error:
            problem, hint = f'backend "{name}" cannot be asked: {error}', None
        return {"type": kind, "reachable": False, "problem": problem, "hint": hint}, {}

    return dict(zip(names, await asyncio.gather(*map(ask, names)), strict=True))


async def _on_servers(
    world: World, places: Sequence[_Place], servers: Mapping[str, Look], serving: dict[str, Glance]
) -> dict[str, Glance]:
    """Ask each server once for all its databases; adds to `serving`, returns those that are wanted elsewhere."""
    asked: dict[str, list[tuple[_Place, bool]]] = defaultdict(list)
    for place in places:
        for name in dict.fromkeys((place.backend, place.item.backend)):
            known = world.backends.get(name)
            if known and known.type != "json" and servers[name][0].get("reachable"):
                asked[name].append((place, name == place.backend))
    answers = await asyncio.gather(
        *(_asked([world.store(place.item, name) for place, _ in group]) for name, group in asked.items())
    )
    targets: dict[str, Glance] = {}
    for group, glances in zip(asked.values(), answers, strict=True):
        for (place, serves), glance in zip(group, glances, strict=True):
            (serving if serves else targets)[place.item.database] = glance
    return targets


async def _asked(stores: Sequence[Store]) -> list[Glance]:
    """Glances of stores of one backend; why there is none stands in each of them."""
    try:
        return await asyncio.wait_for(stores[0].glance(stores[1:]), PATIENCE_S)
    except asyncio.TimeoutError:
        problem = f'backend "{stores[0].backend}" did not answer within {PATIENCE_S:.0f} s'
    except HybridragError as error:
        problem = error.what
    return [Glance(problem=problem) for _ in stores]


def _unanswered(place: _Place, servers: Mapping[str, Look]) -> Glance:
    facts, _ = servers.get(place.backend, ({}, {}))
    return Glance(problem=str(facts.get("problem") or f'its backend "{place.backend}" is not in the spec'))


def _database(
    place: _Place, glance: Glance, server: Look, move_to: str | None, migration: Migration | None
) -> DatabaseStatus:
    facts, details = server
    in_files = place.type == "json"
    size = sum(glance.sizes.values()) if glance.sizes else details.get("bytes")
    latency = details.get("latency_ms")
    oversized = _oversized(glance.sizes, place.item.thresholds)
    problems = tuple(filter(None, (glance.problem, *glance.faults)))
    return DatabaseStatus(
        database=place.item.database,
        backend=place.backend,
        backend_type=place.type,
        wanted=place.item.backend,
        health="error" if glance.problem else "degraded" if problems or oversized else "healthy",
        problems=problems,
        hint=str(facts["hint"]) if facts.get("hint") and not in_files else None,
        connected=not glance.problem if in_files else bool(facts.get("reachable")),
        latency_ms=float(latency) if isinstance(latency, (int, float)) else None,
        records=glance.records,
        estimated=glance.estimated,
        size=size if isinstance(size, int) else None,
        sizes=glance.sizes,
        thresholds=place.item.thresholds,
        oversized=oversized,
        move_to=move_to,
        migration=migration,
    )


def _oversized(sizes: Mapping[str, int], thresholds: Thresholds) -> tuple[str, ...]:
    """Files above their threshold, and "" when all of them together are above theirs."""
    files = [name for name, size in sizes.items() if size > thresholds.file_bytes]
    return (*files, *([""] if sum(sizes.values()) > thresholds.total_bytes else []))


def _migration(
    place: _Place, record: ProgressRecord | None, target: Glance | None, live: bool
) -> Migration | None:
    if place.backend == place.item.backend:
        return None
    if record is not None and record.outcome != "done":
        ended = "failed" if record.outcome == "failed" else "interrupted"
        return Migration(
            state="running" if live and record.outcome is None else ended,
            step=record.step,
            phase=record.phase,
            records=record.records,
            total=record.total,
            bytes=record.bytes,
            rate=record.rate,
            eta_s=record.eta_s,
            error=record.error,
        )
    if target is None or target.state is None or target.state == "switched":
        return None
    # The state folder was lost, or is another: the mark on the target is all that tells.
    return Migration(
        state="interrupted", step=f"migrate.{place.item.database}", phase=target.state, records=target.copied,
        total=0, bytes=0, rate=None, eta_s=None, error=None,
    )  # fmt: skip
