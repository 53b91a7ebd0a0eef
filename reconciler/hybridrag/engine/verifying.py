"""Verify on demand: compare what a database was moved from with where it is, or is wanted. Read-only."""

from __future__ import annotations

from dataclasses import dataclass

from hybridrag.errors import BackendUnavailable, NotFound
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare
from hybridrag.model.data import streams_of
from hybridrag.model.events import Emit
from hybridrag.model.ports import Examination, Reader, Store
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
    """Both passes, in constant memory. Raises NotFound without a source, BackendUnavailable without a target."""
    item = world.database(name)
    pairs = [await _pair(world, item, part) for part in parts_of(item, world.pointer.current(name))]
    step, total = f"verify.{name}", sum(pair.records for pair in pairs)
    examining = Meter(emit, step, "reading the source", total)
    comparing = Meter(emit, step, "comparing", total)
    whole, examination = Report(), Examination()
    for pair in pairs:
        reader, streams = pair.source.reader(), streams_of(pair.source.slots)
        expected, found = await examine_source(
            reader, pair.target, streams, item.batch, examining, lanes=item.lanes
        )
        examination.add(found)
        rest = LeftOut(found.left_out).of(reader)
        whole.add(
            await compare(rest, pair.target, pair.written, expected, item.batch, comparing, lanes=item.lanes)
        )
        whole.recall = whole.recall or await pair.target.recall()
    return whole, examination


async def _pair(world: World, item: Wanted, part: Part) -> _Pair:
    target_name = JSON if part.target.type == JSON else part.target.name
    origin = _origin(world, item, part) if part.in_place else part.source
    if origin == target_name:
        raise NotFound(
            f'database "{item.database}" was never moved; there is no other backend to compare with',
            hint=f"set databases.{item.database}.backend in the spec, then run hybridrag plan",
        )
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


def _origin(world: World, item: Wanted, part: Part) -> str:
    """Where slots that are in place came from: the newest kept backend that held them, else the JSON files."""
    entry = world.registry.read().databases.get(item.database)
    wanted = {slot.value for slot in part.slots}
    for kept in reversed(entry.kept if entry else ()):
        if wanted <= set(kept.slots) and (kept.backend_type == JSON or kept.backend in world.backends):
            return JSON if kept.backend_type == JSON else kept.backend
    return JSON
