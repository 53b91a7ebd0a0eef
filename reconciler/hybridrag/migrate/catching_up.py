"""Bring a finished copy up to the present state of its source by a whole pass: only what differs is written.

The bucket tables of both sides (`digest.py`) tell which buckets differ. The source is read once, and of its records in
those buckets each is compared with the target's own; what was written is read back. Buckets that differ still hold
records that the source has not: their keys are compared, some buckets at a time. At the end both tables must be equal.
`changing.py` does the same without a pass over the source, where it can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from hybridrag.model.data import Batch
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Mending, Patcher, Reader, Store

from .digest import NamespaceDigest, bucket_of, record_digest
from .progress import Meter

CHUNK = 500
"""Keys asked for at once."""
HELD = 50_000
"""Keys held at most while those are looked for that the source has not (more only where one bucket holds more)."""


@dataclass(slots=True, kw_only=True)
class Delta:
    """What a catch-up wrote: records put (new or changed) and taken out."""

    put: int = 0
    removed: int = 0

    @property
    def records(self) -> int:
        return self.put + self.removed

    def __str__(self) -> str:
        return f"{self.put:,} new or changed, {self.removed:,} removed"


async def catch_up(
    source: Reader,
    target: Store,
    mending: Mending,
    patcher: Patcher,
    wanted: Mapping[str, NamespaceDigest],
    held: Mapping[str, NamespaceDigest],
    rows: int,
    meter: Meter,
) -> Delta:
    """Make the target hold what `wanted` says; `held` is what it holds now, and is kept in step with every write.

    Streams are patched in copy order, so that nodes stand before their edges; removals go the other way round.
    The caller compares `wanted` and `held` afterwards.
    """
    delta = Delta()
    for name in wanted:
        buckets = frozenset(wanted[name].differing(held[name]))
        if not buckets:
            continue
        async for batch in _in_buckets(source, target, name, buckets, rows):
            for start in range(0, len(batch), CHUNK):
                part = batch.only(range(start, min(len(batch), start + CHUNK)))
                put = await _put(patcher, mending, part, held[name])
                delta.put += put
                meter.add(put, part.size if put else 0)
    for name in reversed(list(wanted)):
        for buckets in _groups(wanted[name].differing(held[name]), held[name]):
            delta.removed += await _remove(source, mending, patcher, name, buckets, held[name], rows)
    meter.tell()
    return delta


def _groups(buckets: Sequence[int], held: NamespaceDigest) -> list[frozenset[int]]:
    """Buckets together that hold about `HELD` records."""
    groups: list[set[int]] = []
    room = 0
    for bucket in buckets:
        if not groups or held.counts[bucket] > room:
            groups.append(set())
            room = HELD
        groups[-1].add(bucket)
        room -= held.counts[bucket]
    return [frozenset(group) for group in groups]


async def _in_buckets(
    source: Reader, target: Store, name: str, buckets: frozenset[int], rows: int
) -> AsyncIterator[Batch]:
    """The source's records in some buckets, as the target would hold them."""
    async for raw in source.read(name, rows=rows):
        chosen = [index for index, key in enumerate(raw.keys) if bucket_of(key.encode()) in buckets]
        if chosen:
            yield target.examine(raw.only(chosen), Examination())


async def _put(patcher: Patcher, target: Mending, batch: Batch, held: NamespaceDigest) -> int:
    """Write those that the target does not hold like this, and read them back: the table says what it really holds."""
    digests = digests_of(batch)
    present = digests_of(await target.fetch(batch.namespace, batch.keys))
    changed = batch.only([i for i, key in enumerate(batch.keys) if present.get(key) != digests[key]])
    if not len(changed):
        return 0
    await patcher.put(changed)
    for key in changed.keys:
        if key in present:
            held.take_digest(key.encode(), present[key])
    for key, digest in digests_of(await target.fetch(changed.namespace, changed.keys)).items():
        held.add_digest(key.encode(), digest)
    return len(changed)


async def _remove(
    source: Reader,
    target: Mending,
    patcher: Patcher,
    name: str,
    buckets: frozenset[int],
    held: NamespaceDigest,
    rows: int,
) -> int:
    """Take out what the target has in some buckets and the source has not; returns how many."""
    extra: set[str] = set()
    async for keys in target.keys(name):
        extra.update(key for key in keys if bucket_of(key.encode()) in buckets)
    async for batch in source.read(name, rows=rows):
        extra.difference_update(batch.keys)
    gone = sorted(extra)
    for start in range(0, len(gone), CHUNK):
        chunk = gone[start : start + CHUNK]
        present = digests_of(await target.fetch(name, chunk))
        await patcher.remove(name, chunk)
        for key, digest in present.items():
            held.take_digest(key.encode(), digest)
    return len(gone)


def digests_of(batch: Batch) -> dict[str, bytes]:
    """The digest of each record by its key."""
    vectors = batch.vectors
    return {
        key: record_digest(key.encode(), fields, b"" if vectors is None else vectors[index].data.cast("B"))
        for index, (key, fields) in enumerate(zip(batch.keys, batch.fields, strict=True))
    }


def apart(wanted: Mapping[str, NamespaceDigest], held: Mapping[str, NamespaceDigest]) -> Sequence[str]:
    """Names of the streams whose tables are not the same; none when both sides hold the same records."""
    return [name for name in wanted if wanted[name].differing(held[name])]
