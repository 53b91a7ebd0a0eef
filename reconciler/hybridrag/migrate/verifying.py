"""Compare two stores record by record, in both directions, in constant memory.

Each side becomes one bucket table per stream (`digest.py`). Where tables differ, both sides are read once
more and only the records of the differing buckets are held, so the report names keys and fields.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hybridrag.model.data import Batch, Range
from hybridrag.model.findings import Examination, Recall
from hybridrag.model.ports import Reader, Store

from .digest import NamespaceDigest, bucket_of, record_digest
from .lanes import in_lanes
from .neighbours import Parity
from .progress import Meter
from .references import Broken
from .since import Moved

LISTED = 20
"""Differences that are named; all are counted."""
HELD = 50_000
"""Records held at most while differences are looked up."""

_WORDS = {
    "blank": "its vector is gone",
    "torn": "its vector is gone, and was written after the switch",
    "spoiled": "its vector was changed by something else than LightRAG",
    "extra": "extra",
}
Form = Callable[[Batch], Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One record that is not the same on both sides.

    `kind`: missing, extra or different (seen from the target); after the switch as `since.Moved` names it.
    """

    namespace: str
    key: str
    kind: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" in {', '.join(self.fields)}" if self.fields else ""
        return f"{self.namespace} {self.key!r}: {_WORDS.get(self.kind, self.kind)}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """What a comparison found in one stream; see `Report`."""

    records: int
    missing: int
    extra: int
    different: int


@dataclass(slots=True, kw_only=True)
class Report:
    """What a comparison found. `records` were compared; the counts are exact unless `truncated`.

    `references` are rules between streams that the target breaks, of `rules` that were looked at; `parity` is None where
    neighbours were not compared. `since`: of streams that serve and whose kept copy shows the state at the switch, what
    became of each; then nothing of it is in `missing`, `extra` and `different`. `unknown_since`: backends whose kept copy
    was written after it was left, so that nobody can tell. `bare`: records of what
    serves that have no vector at all, in words.
    """

    records: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    listed: list[Difference] = field(default_factory=list)
    broken_rules: list[str] = field(default_factory=list)
    recall: Recall | None = None
    truncated: bool = False
    streams: dict[str, StreamReport] = field(default_factory=dict)
    references: list[Broken] = field(default_factory=list)
    rules: int = 0
    parity: Parity | None = None
    since: dict[str, Moved] = field(default_factory=dict)
    unknown_since: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in what the comparison of another part of the same database found."""
        self.records += other.records
        self.missing += other.missing
        self.extra += other.extra
        self.different += other.different
        self.listed += other.listed[: max(0, LISTED - len(self.listed))]
        self.broken_rules += other.broken_rules
        self.truncated |= other.truncated
        self.recall = self.recall or other.recall
        self.streams.update(other.streams)
        self.references += other.references
        self.rules += other.rules
        self.parity = self.parity or other.parity
        self.bare += other.bare
        self.since.update(other.since)
        self.unknown_since += other.unknown_since

    @property
    def damaged(self) -> int:
        """Records that were lost, spoiled or are extra since they began to serve."""
        return sum(moved.damaged for moved in self.since.values())

    @property
    def serves(self) -> bool:
        """Whether what was compared serves, so that it may have been written since."""
        return bool(self.since or self.unknown_since)

    @property
    def moved_on(self) -> int:
        """Records that were written, changed or removed since they began to serve, as it should be."""
        return sum(moved.written + moved.changed + moved.removed for moved in self.since.values())

    @property
    def equal(self) -> bool:
        """Every record is the same on both sides but for what LightRAG wrote since, and no rule is broken anew."""
        apart = self.missing or self.extra or self.different or self.damaged
        return not (apart or self.broken_rules or self.wrong)

    @property
    def wrong(self) -> list[str]:
        """What is wrong although records may be equal, in words."""
        found = [
            str(broken)
            for broken in self.references
            if broken.new and (broken.rule.pair or not self.moved_on)
        ]
        if self.parity is not None and self.parity.apart:
            found += [str(self.parity), *self.parity.listed]
        found += [f"what serves holds {words}: searches find none of them" for words in self.bare]
        return found


class Held:
    """Tables of streams as read back before. This one knows nothing, and keeps nothing."""

    def get(self, namespace: str) -> NamespaceDigest | None:
        return None

    def put(self, namespace: str, table: NamespaceDigest) -> None:
        """Called when a stream was read to its end."""


async def digest_target(reader: Reader, namespace: str, rows: int, meter: Meter) -> NamespaceDigest:
    """The bucket table of one stream as read back from the target."""
    table = NamespaceDigest()
    with meter.stream(namespace):
        async for batch in reader.read(namespace, rows=rows):
            await asyncio.to_thread(table.add, batch)
            meter.add(len(batch), batch.size, namespace)
    return table


async def digest_targets(
    reader: Reader,
    namespaces: Iterable[str],
    rows: int,
    meter: Meter,
    lanes: int = 1,
    held: Held | None = None,
) -> dict[str, NamespaceDigest]:
    """The bucket tables of several streams, some of them read at the same time; those that `held` knows are not."""
    tables: dict[str, NamespaceDigest] = {}
    known = held or Held()

    async def digest(stream: Range) -> None:
        name = stream.namespace
        table = known.get(name)
        if table is None:
            table = await digest_target(reader, name, rows, meter)
            known.put(name, table)
        else:
            meter.add(table.records, 0, name)
        tables[name] = table

    await in_lanes([Range(namespace=name) for name in namespaces], [digest] * lanes)
    return tables


async def compare(
    source: Reader,
    target: Store,
    written: Reader,
    expected: dict[str, NamespaceDigest],
    rows: int,
    meter: Meter,
    held: Held | None = None,
    *,
    lanes: int = 1,
) -> Report:
    """Read back what was written to the target and compare it with what the source says it must hold.

    `held` knows the tables of streams that need not be read again.
    """
    report = Report()
    reader = written

    def form(batch: Batch) -> Batch:
        return target.examine(batch, Examination())

    tables = await digest_targets(reader, expected, rows, meter, lanes, held)
    for namespace, table in expected.items():
        found = tables[namespace]
        before = report.missing, report.extra, report.different
        report.records += table.records
        if buckets := table.differing(found):
            await _narrow(namespace, source, reader, form, table, found, buckets, rows, report)
        missing, extra, different = (
            now - then
            for now, then in zip((report.missing, report.extra, report.different), before, strict=True)
        )
        report.streams[namespace] = StreamReport(
            records=table.records, missing=missing, extra=extra, different=different
        )
    meter.tell()
    report.broken_rules = await target.related()
    return report


async def _narrow(
    namespace: str,
    source: Reader,
    reader: Reader,
    form: Form,
    expected: NamespaceDigest,
    found: NamespaceDigest,
    buckets: list[int],
    rows: int,
    report: Report,
) -> None:
    """Name the records of the differing buckets, as many as fit into memory."""
    chosen: set[int] = set()
    held = 0
    for bucket in buckets:
        held += expected.counts[bucket] + found.counts[bucket]
        if chosen and held > HELD:
            report.truncated = True
            break
        chosen.add(bucket)
    wanted = await _records(source.read(namespace, rows=rows), chosen, form)
    present = await _records(reader.read(namespace, rows=rows), chosen, lambda batch: batch)
    suspects: list[str] = []
    for key in sorted(wanted.keys() | present.keys()):
        if key not in present:
            report.missing += 1
            _list(report, Difference(namespace=namespace, key=key, kind="missing"))
        elif key not in wanted:
            report.extra += 1
            _list(report, Difference(namespace=namespace, key=key, kind="extra"))
        elif wanted[key] != present[key]:
            report.different += 1
            suspects.append(key)
    suspects = suspects[: max(0, LISTED - len(report.listed))]
    if suspects:
        mine = await _full(source.read(namespace, rows=rows), set(suspects), form)
        theirs = await _full(reader.read(namespace, rows=rows), set(suspects), lambda batch: batch)
        for key in suspects:
            names = _fields_apart(mine.get(key), theirs.get(key))
            _list(report, Difference(namespace=namespace, key=key, kind="different", fields=names))


def _list(report: Report, difference: Difference) -> None:
    if len(report.listed) < LISTED:
        report.listed.append(difference)


async def _records(
    stream: AsyncIterator[Batch], chosen: set[int], form: Form
) -> dict[str, tuple[bytes, ...]]:
    """Digests by key of the records in the chosen buckets; a key that stands twice has two."""
    found: dict[str, tuple[bytes, ...]] = {}
    async for raw in stream:
        batch = form(raw)
        for index, key in enumerate(batch.keys):
            name = key.encode()
            if bucket_of(name) in chosen:
                vector = b"" if batch.vectors is None else batch.vectors[index].tobytes()
                found[key] = (*found.get(key, ()), record_digest(name, batch.fields[index], vector))
    return found


async def _full(stream: AsyncIterator[Batch], keys: set[str], form: Form) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    async for raw in stream:
        if keys.isdisjoint(raw.keys):
            continue
        batch = form(raw)
        for index, key in enumerate(batch.keys):
            if key in keys:
                found[key] = dict(batch.fields[index])
                if batch.vectors is not None:
                    found[key]["vector"] = batch.vectors[index].copy()
    return found


def _fields_apart(mine: dict[str, Any] | None, theirs: dict[str, Any] | None) -> tuple[str, ...]:
    if mine is None or theirs is None:
        return ()
    names = sorted(mine.keys() | theirs.keys())
    return tuple(name for name in names if not _same(mine.get(name), theirs.get(name)))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)
