"""Verify on demand: compare what a database was moved from with where it is, or is wanted. Read-only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from hybridrag.errors import BackendUnavailable, NotFound
from hybridrag.migrate.catching_up import apart
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.neighbours import Sample, compare_neighbours
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.references import References, compare_references
from hybridrag.migrate.since import moved_since
from hybridrag.migrate.verifying import LISTED, Difference, Report, StreamReport, compare, digest_targets
from hybridrag.migrate.watching import Watched
from hybridrag.model.data import Batch, Slot, streams_of
from hybridrag.model.events import Emit
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Reader, Store
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON, Part, parts_of
from hybridrag.planner.embedding import without_vectors

from .embedding import look, refuse_other_embedding
from .kept import kept_of
from .locating import locate
from .world import World

_Tables = Mapping[str, NamespaceDigest]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two stores that must hold the same; `records` is what the first one holds.

    `since`: the second serves, and the first is as it was when it was left. None: it serves, and that cannot be said.
    """

    source: Store
    target: Store
    written: Reader
    records: int
    since: bool | None = False


async def verify_database(
    world: World, name: str, emit: Emit, *, thorough: bool = True
) -> tuple[Report, Examination]:
    """Both passes, in constant memory, and what the records say of one another, wherever their slots lie.

    `thorough`: also whether the same neighbours are found, and how well the index finds them. Raises NotFound without a
    source, BackendUnavailable without a target.
    """
    item = world.database(name)
    await locate(world, [item])
    world.refuse_mislaid(item)
    parts = parts_of(item, world.pointer.current(name))
    unmoved = [part for part in parts if _origins(world, item, part)[0] == _origins(world, item, part)[1]]
    if len(unmoved) == len(parts):
        raise NotFound(
            f'database "{name}" was never moved; there is no other backend to compare with',
            hint=f"set databases.{name}.backend in the spec, then run hybridrag plan",
        )
    await refuse_other_embedding(world, item)
    pairs = [await _pair(world, item, part) for part in parts if part not in unmoved]
    work = _Verification(item, sum(pair.records for pair in pairs), emit, thorough=thorough)
    for pair in pairs:
        await work.look_at(pair)
    for part in unmoved:
        await work.gather(world.store(item, part.source, part.slots))
    await work.judge()
    if thorough:
        work.report.bare = without_vectors((await look(world, item))[0].records)
    return work.report, work.examination


class _Verification:
    """One verification: what was gathered of both sides so far, and the report that it becomes."""

    def __init__(self, item: Wanted, total: int, emit: Emit, *, thorough: bool) -> None:
        self.report, self.examination = Report(), Examination()
        self._item = item
        self._thorough = thorough
        self._examining = Meter(emit, f"verify.{item.database}", "reading the source", total)
        self._comparing = Meter(emit, f"verify.{item.database}", "comparing", total)
        self._here, self._there = References(), References()
        self._written: dict[str, Reader] = {}
        self._left_out: list[tuple[Reader, tuple[str, ...]]] = []
        self._serving: list[tuple[_Pair, Reader, _Tables, _Tables]] = []

    async def look_at(self, pair: _Pair) -> None:
        """Read both sides of a pair once, and compare them where they must be equal."""
        item, reader, streams = self._item, pair.source.reader(), streams_of(pair.source.slots)
        sample = Sample()
        watched = Watched(reader, self._here, sample)
        expected, found = await examine_source(
            watched, pair.target, streams, item.batch, self._examining, lanes=item.lanes
        )
        self.examination.add(found)
        rest = LeftOut(found.left_out).of(reader)
        self._left_out.append((rest, tuple(LeftOut(found.left_out).streams)))
        written = Watched(pair.written, self._there)
        if pair.since:
            held = await digest_targets(written, streams, item.batch, self._comparing, item.lanes)
            self._comparing.tell()
            self._serving.append((pair, rest, expected, held))
            report = Report(records=sum(table.records for table in held.values()))
            report.broken_rules = await pair.target.related()
            same = not set(apart(expected, held)) & set(streams_of({Slot.VECTOR}))
        else:
            report = await compare(
                rest, pair.target, written, expected, item.batch, self._comparing, lanes=item.lanes
            )
            vectors = [report.streams[name] for name in streams_of({Slot.VECTOR}) if name in report.streams]
            same = not any(each.missing or each.extra or each.different for each in vectors)
        if pair.since is None:
            report.unknown_since.append(pair.source.backend)
        if self._thorough:
            if same and Slot.VECTOR in pair.source.slots:
                # Of other vectors others are nearest, which says nothing.
                report.parity = await compare_neighbours(rest, pair.target, sample, item.batch)
            report.recall = await pair.target.recall()
        self.report.add(report)
        self._written.update(dict.fromkeys(streams, pair.written))

    async def gather(self, store: Store) -> None:
        """Slots that never moved: nothing to compare with, but records of other slots name these."""
        reader = store.reader()
        for stream in streams_of(store.slots):
            async for batch in reader.read(stream, rows=self._item.batch):
                self._here.add(batch)
                self._there.add(batch)
            self._written[stream] = reader

    async def judge(self) -> None:
        """What takes all streams of all slots to be read before."""
        rows, streams = self._item.batch, list(self._written)
        for pair, rest, then, now in self._serving:
            moved = await moved_since(rest, pair.target, pair.written, then, now, rows, self._there)
            self.report.since.update(moved)
            for name, each in moved.items():
                self.report.streams[name] = StreamReport(
                    records=now[name].records,
                    missing=len(each.lost),
                    extra=len(each.extra),
                    different=len(each.blank | each.torn | each.spoiled),
                )
                for kind, key in each.wrong():
                    if len(self.report.listed) < LISTED:
                        self.report.listed.append(Difference(namespace=name, key=key, kind=kind))
        everything = self._here.copy()
        for rest, left in self._left_out:
            await _without(self._here, rest, left, rows)

        def read(name: str) -> AsyncIterator[Batch]:
            return self._written[name].read(name, rows=rows)

        self.report.references = await compare_references(self._here, self._there, streams, read, everything)
        self.report.rules = len(self._there.broken(streams))


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
    records = sum(count for count in counts if isinstance(count, int))
    return _Pair(source, target, written, records, await _as_it_was_left(world, item, part, origin))


async def _as_it_was_left(world: World, item: Wanted, part: Part, origin: str) -> bool | None:
    """Whether what a serving part came from shows the state at the switch; None where it serves, and that cannot be said."""
    if not part.in_place:
        return False
    kept = next(
        (
            each
            for each in reversed(kept_of(world.registry, item))
            if each.name == origin and part.slots <= set(each.slots)
        ),
        None,
    )
    if kept is None or kept.fingerprint is None:
        return None
    reader = world.store(item, origin, frozenset(kept.slots)).reader()
    return True if await reader.fingerprint() == kept.fingerprint else None


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
