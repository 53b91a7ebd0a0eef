"""Verify on demand: compare what a database was moved from with where it is, or is wanted. Read-only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hybridrag.errors import BackendUnavailable, NotFound
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.neighbours import Sample, compare_neighbours
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.references import References, compare_references
from hybridrag.migrate.verifying import Report, compare
from hybridrag.migrate.watching import Watched
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.events import Emit
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Reader, Store
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON, Part, parts_of

from .world import World


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two stores that must hold the same; `records` is what the first one holds."""

    source: Store
    target: Store
    written: Reader
    records: int


async def verify_database(world: World, name: str, emit: Emit) -> tuple[Report, Examination]:
    """Both passes, in constant memory, and what the records say of one another, wherever their slots lie.

    Raises NotFound without a source, BackendUnavailable without a target.
    """
    item = world.database(name)
    world.refuse_mislaid(item)
    parts = parts_of(item, world.pointer.current(name))
    unmoved = [part for part in parts if _origins(world, item, part)[0] == _origins(world, item, part)[1]]
    if len(unmoved) == len(parts):
        raise NotFound(
            f'database "{name}" was never moved; there is no other backend to compare with',
            hint=f"set databases.{name}.backend in the spec, then run hybridrag plan",
        )
    pairs = [await _pair(world, item, part) for part in parts if part not in unmoved]
    step, total = f"verify.{name}", sum(pair.records for pair in pairs)
    examining = Meter(emit, step, "reading the source", total)
    comparing = Meter(emit, step, "comparing", total)
    whole, examination = Report(), Examination()
    here, there = References(), References()
    written: dict[str, Reader] = {}
    left_out: list[tuple[Reader, tuple[str, ...]]] = []
    for pair in pairs:
        reader, streams, sample = pair.source.reader(), streams_of(pair.source.slots), Sample()
        watched = Watched(reader, here, sample)
        expected, found = await examine_source(
            watched, pair.target, streams, item.batch, examining, lanes=item.lanes
        )
        examination.add(found)
        rest = LeftOut(found.left_out).of(reader)
        left_out.append((rest, tuple(LeftOut(found.left_out).streams)))
        report = await compare(
            rest,
            pair.target,
            Watched(pair.written, there),
            expected,
            item.batch,
            comparing,
            lanes=item.lanes,
        )
        vectors = [report.streams[name] for name in streams_of({Slot.VECTOR}) if name in report.streams]
        if vectors and not any(each.missing or each.extra or each.different for each in vectors):
            # Of other vectors others are nearest, which says nothing.
            report.parity = await compare_neighbours(rest, pair.target, sample, item.batch)
        report.recall = await pair.target.recall()
        whole.add(report)
        written.update(dict.fromkeys(streams, pair.written))
    for part in unmoved:
        # Nothing to compare with, but records of other slots name these.
        reader = world.store(item, part.source, part.slots).reader()
        for stream in streams_of(part.slots):
            async for batch in reader.read(stream, rows=item.batch):
                here.add(batch)
                there.add(batch)
            written[stream] = reader
    everything = here.copy()
    for rest, streams in left_out:
        await _without(here, rest, streams, item.batch)
    whole.references = await compare_references(
        here, there, list(written), lambda name: written[name].read(name, rows=item.batch), everything
    )
    whole.rules = len(there.broken(list(written)))
    return whole, examination


async def _without(names: References, rest: Reader, streams: Iterable[str], rows: int) -> None:
    """What stays behind must be missed by nobody: these streams are gathered again without it."""
    for name in streams:
        names.forget(name)
        async for batch in rest.read(name, rows=rows):
            names.add(batch)


async def _pair(world: World, item: Wanted, part: Part) -> _Pair:
    origin, target_name = _origins(world, item, part)
    for backend in (world.holder(origin), world.holder(target_name)):
        server, _ = await backend.observe()
        if not server.get("reachable"):
            raise BackendUnavailable(str(server.get("problem")), hint=str(server.get("hint") or "") or None)
    source = world.store(item, origin, part.slots)
    target = world.store(item, target_name, part.slots)
    facts, _ = await source.observe()
    if not facts.get("exists"):
        raise NotFound(
            f'database "{item.database}": {facts.get("missing")}',
            hint="without its source there is nothing to compare with",
        )
    held, _ = await target.observe()
    if not (held.get("exists") or held.get("schema")):
        raise NotFound(
            f'backend "{part.target.name}" does not hold database "{item.database}" yet',
            hint="hybridrag apply",
        )
    counts = (facts.get(f"records/{stream}") for stream in streams_of(part.slots))
    begun = held.get("migration")
    written = target.reader() if part.in_place or begun is None else target.written(str(begun))
    return _Pair(source, target, written, sum(count for count in counts if isinstance(count, int)))


def _origins(world: World, item: Wanted, part: Part) -> tuple[str, str]:
    """(where a part came from, where it is or belongs), as facts name backends; the same for one that never moved."""
    target = JSON if part.target.type == JSON else part.target.name
    return _origin(world, item, part) if part.in_place else part.source, target


def _origin(world: World, item: Wanted, part: Part) -> str:
    """Where slots that are in place came from: the newest kept backend that held them, else the JSON files."""
    entry = world.registry.read().databases.get(item.database)
    wanted = {slot.value for slot in part.slots}
    for kept in reversed(entry.kept if entry else ()):
        if wanted <= set(kept.slots) and (kept.backend_type == JSON or kept.backend in world.backends):
            return JSON if kept.backend_type == JSON else kept.backend
    return JSON
