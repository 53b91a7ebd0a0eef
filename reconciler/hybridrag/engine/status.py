"""Status: what each database uses now, its size and health, and the last run. Read-only, and quick at any size."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hybridrag.errors import HybridragError, PlanRefused
from hybridrag.journal import (
    ProgressRecord,
    RunRecord,
    is_running,
    last_run,
    open_pauses,
    progress,
    served_counts,
)
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.events import StreamProgress
from hybridrag.model.facts import Facts
from hybridrag.model.findings import Glance
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Store
from hybridrag.model.wanted import Thresholds, Wanted, in_words
from hybridrag.model.workspaces import server_warning
from hybridrag.planner import JSON, in_use
from hybridrag.planner.completeness import missing_streams
from hybridrag.planner.embedding import refuse_strangers
from hybridrag.planner.losses import losses

from .embedding import seen_at
from .health import PATIENCE_S, Look, servers_of
from .history import forgotten
from .kept import Kept, kept_of
from .late import late_writes, settings_hint
from .locating import locate
from .watching import Watcher, watcher_of
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A move that runs, or did not come to its end: `state` is running, interrupted or failed.

    `rate` is records per second, `eta_s` seconds; None while unknown. `total` is 0 where nothing is counted.
    `streams` are being worked on now.
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
    streams: tuple[StreamProgress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatus:
    """One database. `health` is healthy, degraded or error; `problems` say why.

    `records` by namespace, None where not known; those in `estimated` are estimates. `size` is in bytes: all files,
    or the whole database of the server that serves it, its own or shared; `sizes` by file. `hint`: what to do about `problems`. `oversized` names what is above the
    thresholds, "" for the total. `move_to`: the backend to move it to because of that, None when there is none.
    `kept`: what served it before, the oldest first. `alone`: what a server keeps of it shares its database with nobody.
    `watcher`: the daemon that feeds it, None where none does.
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
    kept: tuple[Kept, ...] = ()
    alone: bool = False
    watcher: Watcher | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """One backend that is used or wanted."""

    name: str
    type: str
    facts: Facts
    details: Facts
    words: tuple[str, ...] = ()
    """What its server is, in its engine's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The whole answer. `running`: an apply holds the lease right now. `warnings` are about backends as a whole."""

    environment: str
    databases: tuple[DatabaseStatus, ...]
    backends: tuple[BackendStatus, ...]
    last_run: RunRecord | None
    running: bool
    paused: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Every database is, and every backend that is used or wanted can be reached."""
        return all(item.health == "healthy" for item in self.databases) and all(
            backend.facts.get("reachable") for backend in self.backends
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where some slots of a database are now."""

    item: Wanted
    backend: str
    type: str
    slots: frozenset[Slot]

    @property
    def key(self) -> tuple[str, str]:
        return self.item.database, self.backend


async def status(world: World, names: Iterable[str] = ()) -> Status:
    """Look at everything; nothing that is broken hides the rest, and a dead server costs its time once."""
    items = world.chosen(names)
    await locate(world, items)
    pointer, registry = world.pointer.held(), world.registry.held()
    places = {item.database: _places(world, item, pointer.current(item.database)) for item in items}
    every = [place for group in places.values() for place in group]
    wanted = {place.name for item in items for place in item.places} | {place.backend for place in every}
    files = [place for place in every if place.type == JSON]
    servers, in_files = await asyncio.gather(
        servers_of(world, sorted(wanted & world.backends.keys())),
        asyncio.gather(*(_asked([world.store(place.item, JSON, place.slots)]) for place in files)),
    )
    serving = {place.key: found[0] for place, found in zip(files, in_files, strict=True)}
    targets = await _on_servers(world, every, servers, serving)
    live = is_running(world.journal_path)
    records = progress(world.journal_path)
    served = served_counts(world.journal_path)
    late = {item.database: await late_writes(world, item) for item in items}
    databases = []
    told: dict[str, None] = {}
    hints: dict[str, str | None] = {}
    for item in items:
        group = places[item.database]
        glances = [(place, serving.get(place.key) or _unanswered(place, servers)) for place in group]
        told |= dict.fromkeys(warning for _, glance in glances for warning in glance.warnings)
        if any(place.type != JSON for place in group) and (
            warning := server_warning(item.database, item.workspace)
        ):
            told[warning] = None
        if mislaid := pointer.mislaid(item.database, kept=False):
            glances = [(place, Glance(problem=mislaid.what)) for place in group]
        found = world.located[item.database]
        if found.contradiction is not None:
            lost = found.error(item.database)
            glances = [
                (place, replace(glance, problem=glance.problem or lost.what)) for place, glance in glances
            ]
            hints[item.database] = lost.hint
        databases.append(
            _database(
                item,
                glances,
                servers,
                world.server_for(item),
                _migration(item, group, records.get(item.database), targets.get(item.database), live),
                kept_of(registry, item),
                watcher_of(world, item, _sizes(glances)),
                served.get(item.database, {}),
                hints.get(item.database),
                late[item.database],
            )
        )
    return Status(
        environment=world.environment,
        databases=tuple(databases),
        backends=tuple(
            BackendStatus(
                name=name,
                type=world.backend(name).type,
                facts=facts,
                details=details,
                words=world.backend(name).words(facts),
            )
            for name, (facts, details) in servers.items()
        ),
        last_run=last_run(world.journal_path),
        running=live,
        paused=tuple(open_pauses(world.journal_path)),
        warnings=(*told, *filter(None, [forgotten(world)])),
    )


def _places(world: World, item: Wanted, entry: Facts) -> list[_Place]:
    """The backends that serve a database, as its registry entry has it; one, unless its slots lie apart."""
    current = in_use(entry)
    found = []
    for name in dict.fromkeys(current.values()):
        known = world.backends.get(name)
        kind = JSON if name == JSON else known.type if known else str(entry.get("backend_type"))
        slots = frozenset(slot for slot in Slot if current[slot] == name)
        found.append(
            _Place(item=item, backend=world.files.name if name == JSON else name, type=kind, slots=slots)
        )
    return found


async def _on_servers(
    world: World,
    places: Sequence[_Place],
    servers: Mapping[str, Look],
    serving: dict[tuple[str, str], Glance],
) -> dict[str, Glance]:
    """Ask each server once for all its databases; adds to `serving`, returns those that are wanted elsewhere."""
    asked: dict[str, dict[str, Store]] = defaultdict(dict)
    for place in places:
        for name, slots in ((place.backend, place.slots), *_wanted_on(place.item)):
            known = world.backends.get(name)
            if known and known.type != JSON and servers[name][0].get("reachable"):
                asked[name].setdefault(place.item.database, world.store(place.item, name, slots))
    answers = await asyncio.gather(*(_asked(list(group.values())) for group in asked.values()))
    serves = {place.key for place in places}
    targets: dict[str, Glance] = {}
    for (name, group), glances in zip(asked.items(), answers, strict=True):
        for database, glance in zip(group, glances, strict=True):
            if (database, name) in serves:
                serving[database, name] = glance
            elif database not in targets or targets[database].state is None:
                targets[database] = glance
    return targets


def _wanted_on(item: Wanted) -> list[tuple[str, frozenset[Slot]]]:
    return [
        (place.name, frozenset(slot for slot in Slot if item.placement[slot].name == place.name))
        for place in item.places
    ]


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


def _sizes(glances: Sequence[tuple[_Place, Glance]]) -> dict[str, int]:
    return {name: size for _, glance in glances for name, size in glance.sizes.items()}


def _database(
    item: Wanted,
    glances: Sequence[tuple[_Place, Glance]],
    servers: Mapping[str, Look],
    move_to: str | None,
    migration: Migration | None,
    kept: tuple[Kept, ...],
    watcher: Watcher | None,
    served: Mapping[str, int],
    hint: str | None = None,
    late: tuple[str, ...] = (),
) -> DatabaseStatus:
    places = [place for place, _ in glances]
    looks = {place.backend: servers.get(place.backend, ({}, {})) for place in places if place.type != JSON}
    sizes = _sizes(glances)
    alone = {place.backend: glance.size for place, glance in glances if glance.size is not None}
    on_server = [alone.get(name, details.get("bytes")) for name, (_, details) in looks.items()]
    known = [sum(sizes.values()), *(size for size in on_server if isinstance(size, int))]
    told = [details.get("latency_ms") for _, details in looks.values()]
    latencies = [float(value) for value in told if isinstance(value, (int, float))]
    oversized = item.thresholds.exceeded(sizes)
    broken = [glance.problem for _, glance in glances if glance.problem]
    records = {
        name: glance.records.get(name) for place, glance in glances for name in streams_of(place.slots)
    }
    lacking = [f"it holds {missing}" for missing in missing_streams(records)] + list(losses(served, records))
    broken += _misplaced(item, glances)
    problems = (*broken, *(fault for _, glance in glances for fault in glance.faults), *lacking, *late)
    types = {place.type for place in places}
    return DatabaseStatus(
        database=item.database,
        backend=in_words({slot: place.backend for slot in Slot for place in places if slot in place.slots}),
        backend_type=types.pop() if len(types) == 1 else "mixed",
        wanted=item.backend,
        health="error" if broken else "degraded" if problems or oversized else "healthy",
        problems=problems,
        hint=hint
        or next((str(facts["hint"]) for facts, _ in looks.values() if facts.get("hint")), None)
        or (settings_hint(item.database) if late and problems == late else None)
        or (_following(item, kept) if problems else None),
        connected=all(facts.get("reachable") for facts, _ in looks.values())
        and not any(glance.problem for place, glance in glances if place.type == JSON),
        latency_ms=max(latencies, default=None),
        records=records,
        estimated=frozenset().union(*(glance.estimated for _, glance in glances)),
        size=sum(known) if sizes or len(known) > 1 else None,
        sizes=sizes,
        thresholds=item.thresholds,
        oversized=oversized,
        move_to=move_to,
        migration=migration,
        kept=kept,
        alone=bool(alone) and len(alone) == len(looks),
        watcher=watcher,
    )


def _following(item: Wanted, kept: Sequence[Kept]) -> str:
    """The command that says more about what is wrong with the data: with what is kept it can be compared."""
    return f"hybridrag drift {item.database}" if kept else "hybridrag plan"


def _misplaced(item: Wanted, glances: Sequence[tuple[_Place, Glance]]) -> list[str]:
    """Vectors that lie where LightRAG, told what the spec says, does not look."""
    backend = next((place.backend for place, _ in glances if Slot.VECTOR in place.slots), "")
    seen = seen_at(backend, [(place.slots, glance) for place, glance in glances])
    try:
        refuse_strangers(item, seen)
    except PlanRefused as error:
        return [error.what.partition(": ")[2]]
    return []


def _migration(
    item: Wanted, places: Sequence[_Place], record: ProgressRecord | None, target: Glance | None, live: bool
) -> Migration | None:
    if all(item.placement[slot].name == place.backend for place in places for slot in place.slots):
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
            streams=record.streams if live and record.outcome is None else (),
        )
    if target is None or target.state is None or target.state == MarkState.SWITCHED:
        return None
    # The state folder was lost, or is another: the mark on the target is all that tells.
    return Migration(
        state="interrupted", step=f"migrate.{item.database}", phase=target.state, records=target.copied,
        total=0, bytes=0, rate=None, eta_s=None, error=None,
    )  # fmt: skip
