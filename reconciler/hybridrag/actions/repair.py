"""Repair: put back into what serves what it lost, from what is kept of it. Rows that are there are never touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hybridrag.errors import PlanRefused, VerificationFailed
from hybridrag.migrate.catching_up import CHUNK, digests_of
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.references import References
from hybridrag.migrate.since import Moved, moved_since
from hybridrag.migrate.verifying import digest_targets
from hybridrag.migrate.watching import Watched
from hybridrag.model.data import Batch
from hybridrag.model.events import Warned
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Mending, Patcher, Reader

from .base import Context, Part


@dataclass(frozen=True, slots=True)
class _Looked:
    """A part, its kept copy without what the serving backend cannot hold, and what became of each stream."""

    part: Part
    kept: Reader
    moved: Mapping[str, Moved]


class Repair:
    verb = "repair"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        if not ran:
            return None  # an earlier look does not vouch for what happened since
        looked = await _look(context)
        if left := sum(len(moved.mendable) for each in looked for moved in each.moved.values()):
            raise VerificationFailed(
                f'database "{context.database}": {left:,} records that were put back are not there as they are kept',
                hint=f"hybridrag verify {context.database} names them",
            )
        records = sum(part.total for part in context.parts)
        return (
            f"compared again: of {records:,} records that are kept none is missing unless LightRAG removed it"
        )

    async def do(self, context: Context) -> None:
        for part in context.parts:
            mending = _mending(context, part)
            async with mending.restoring():
                await mending.complete(lambda words: _tell(context, words))
        for each in await _look(context):
            await _put_back(context, each)


def _tell(context: Context, words: str) -> None:
    context.emit(Warned(step=context.step.id, message=words))


def _mending(context: Context, part: Part) -> Mending:
    mending = part.target.mending()
    if mending is None:
        raise PlanRefused(
            f'database "{context.database}": records in backend "{part.target.backend}" cannot be put back one by one',
            hint=f"hybridrag rollback {context.database} --discard-new serves what is kept instead",
        )
    return mending


async def _look(context: Context) -> list[_Looked]:
    """Read both sides of each part. Raises PlanRefused where a kept copy is not as it was left."""
    names, found = References(), []
    meter = Meter(context.emit, context.step.id, "comparing", sum(part.total for part in context.parts))
    for part in context.parts:
        serving = Watched(part.target.reader(), names)
        if not part.move.fingerprint:
            for stream in part.streams:
                async for _ in serving.read(stream, rows=context.batch):
                    pass
            continue
        reader = part.source.reader()
        if await reader.fingerprint() != part.move.fingerprint:
            raise PlanRefused(
                f'what is kept in backend "{part.source.backend}" was written after it was left; nothing was put back from it',
                hint=f"hybridrag verify {context.database} shows how it differs",
            )
        then, examined = await examine_source(
            reader, part.target, part.streams, context.batch, meter, lanes=context.lanes
        )
        now = await digest_targets(serving, part.streams, context.batch, meter, context.lanes)
        found.append((part, LeftOut(examined.left_out).of(reader), then, now))
    meter.tell()
    return [
        _Looked(
            part,
            kept,
            await moved_since(kept, part.target, part.target.reader(), then, now, context.batch, names),
        )
        for part, kept, then, now in found
    ]


async def _put_back(context: Context, looked: _Looked) -> None:
    part, mending = looked.part, _mending(context, looked.part)
    if not any(moved.mendable for moved in looked.moved.values()):
        return
    meter = Meter(context.emit, context.step.id, "putting back", 0)
    async with mending.restoring() as patcher:
        for stream, moved in looked.moved.items():
            wanted, count = moved.mendable, 0
            if not wanted:
                continue
            async for raw in looked.kept.read(stream, rows=context.batch):
                chosen = raw.only([index for index, key in enumerate(raw.keys) if key in wanted])
                batch = part.target.examine(chosen, Examination())
                for start in range(0, len(batch), CHUNK):
                    some = batch.only(range(start, min(len(batch), start + CHUNK)))
                    count += await _put(mending, patcher, some, moved)
                    meter.add(len(some), some.size)
            _tell(context, f"{count:,} records of {stream} put back")
    meter.tell()


async def _put(mending: Mending, patcher: Patcher, batch: Batch, moved: Moved) -> int:
    """Those that are still missing, and those whose vector alone is still gone; returns how many."""
    present = await mending.fetch(batch.namespace, batch.keys)
    there = set(present.keys)
    blank = _without_vectors(present) & moved.blank
    # All but the vector must be the same, or the vector belongs to another text.
    plain, held = digests_of(_plain(batch)), digests_of(_plain(present))
    chosen = [
        index
        for index, key in enumerate(batch.keys)
        if key not in there or (key in blank and held[key] == plain[key])
    ]
    if chosen:
        await patcher.put(batch.only(chosen))
    return len(chosen)


def _plain(batch: Batch) -> Batch:
    return Batch(
        namespace=batch.namespace,
        position=batch.position,
        keys=batch.keys,
        fields=batch.fields,
        size=batch.size,
    )


def _without_vectors(batch: Batch) -> set[str]:
    if batch.vectors is None or not len(batch):
        return set()
    vectors = batch.vectors
    return {key for index, key in enumerate(batch.keys) if np.isnan(vectors[index]).all()}
