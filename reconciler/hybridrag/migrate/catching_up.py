"""Bring a finished copy up to the present state of its source: only what differs is written, all of it is proved.

The bucket tables of both sides (`digest.py`) tell which buckets differ; of those, the target's keys and the
source's records are compared one by one. What was written is read back, and at the end both tables must be equal.
So the work depends on what changed, apart from one pass over the source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from hybridrag.model.data import Batch
from hybridrag.model.ports import Examination, Mending, Patcher, Reader, Store

from .digest import NamespaceDigest, bucket_of, record_digest
from .progress import Meter

CHUNK = 500
"""Keys asked for at once."""


@dataclass(slots=True, kw_only=True)
class Delta:
    """What a catch-up wrote: records put (new or changed) and taken out."""

    put: int = 0
    removed: int = 0

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
    gone: list[tuple[str, list[str]]] = []
    for name in wanted:
        buckets = frozenset(wanted[name].differing(held[name]))
        if not buckets:
            continue
        present = await _present(mending, name, buckets)
        seen: set[str] = set()
        async for batch in _in_buckets(source, target, name, buckets, rows):
            changed = _changed(batch, present, seen)
            if len(changed):
                await _put(patcher, mending, changed, present, held[name])
                delta.put += len(changed)
                meter.add(len(changed), changed.size)
        if extra := [key for key in present if key not in seen]:
            gone.append((name, extra))
            for key in extra:
                held[name].take_digest(key.encode(), present[key])
    for name, keys in reversed(gone):
        for start in range(0, len(keys), CHUNK):
            await patcher.remove(name, keys[start : start + CHUNK])
        delta.removed += len(keys)
    meter.tell()
    return delta


async def _present(target: Mending, name: str, buckets: frozenset[int]) -> dict[str, bytes]:
    """Digest by key of the target's records in some buckets; their keys are asked for first, without the records."""
    chosen: list[str] = []
    async for keys in target.keys(name):
        chosen += [key for key in keys if bucket_of(key.encode()) in buckets]
    found: dict[str, bytes] = {}
    for start in range(0, len(chosen), CHUNK):
        found.update(_digests(await target.fetch(name, chosen[start : start + CHUNK])))
    return found


def _digests(batch: Batch) -> dict[str, bytes]:
    vectors = batch.vectors
    return {
        key: record_digest(key.encode(), fields, b"" if vectors is None else vectors[index].data.cast("B"))
        for index, (key, fields) in enumerate(zip(batch.keys, batch.fields, strict=True))
    }


async def _in_buckets(
    source: Reader, target: Store, name: str, buckets: frozenset[int], rows: int
) -> AsyncIterator[Batch]:
    """The source's records in some buckets, as the target would hold them."""
    async for raw in source.read(name, rows=rows):
        chosen = [index for index, key in enumerate(raw.keys) if bucket_of(key.encode()) in buckets]
        if chosen:
            yield target.examine(raw.only(chosen), Examination())


def _changed(batch: Batch, present: Mapping[str, bytes], seen: set[str]) -> Batch:
    """Those that the target does not hold, or holds otherwise."""
    seen.update(batch.keys)
    digests = _digests(batch)
    return batch.only([i for i, key in enumerate(batch.keys) if present.get(key) != digests[key]])


async def _put(
    patcher: Patcher, target: Mending, batch: Batch, present: Mapping[str, bytes], held: NamespaceDigest
) -> None:
    """Write records and read them back; the table then says what the target really holds."""
    await patcher.put(batch)
    for key in batch.keys:
        if key in present:
            held.take_digest(key.encode(), present[key])
    for key, digest in _digests(await target.fetch(batch.namespace, batch.keys)).items():
        held.add_digest(key.encode(), digest)


def apart(wanted: Mapping[str, NamespaceDigest], held: Mapping[str, NamespaceDigest]) -> Sequence[str]:
    """Names of the streams whose tables are not the same; none when both sides hold the same records."""
    return [name for name in wanted if wanted[name].differing(held[name])]
