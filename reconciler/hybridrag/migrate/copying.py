"""Copy every stream of a store into another, from the last checkpoint on. Knows records, not products.

Streams go in parallel lanes where the writer allows it, and long ones in several ranges. The target itself keeps the
ranges, with the checkpoint of each: both must agree with the rows that are there, whatever becomes of the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence

from hybridrag.failpoints import Point, failpoint
from hybridrag.model.data import BY_NAME, Batch, Range, Slot
from hybridrag.model.ports import ParallelWriter, Reader, Writer

from .lanes import Work, in_lanes
from .progress import Meter
from .threads import closed

RANGE_BATCHES = 10
"""Batches of a range at least; below, starting it costs more than it saves."""


async def ranges_of(
    writer: Writer,
    namespaces: Iterable[str],
    done: Mapping[str, int],
    records: Mapping[str, int],
    rows: int,
    lanes: int,
) -> list[Range]:
    """What is to be copied, in copy order; `done` are committed records by stream, `records` all of them.

    Only vector streams are divided: they are most of the bytes, and skipping into one is cheap.
    """
    names = list(namespaces)
    if not isinstance(writer, ParallelWriter):
        return [Range(namespace=name, done=done.get(name, 0)) for name in names]
    wanted: list[Range] = []
    for name in names:
        count = records.get(name, 0)
        parts = min(lanes, count // (RANGE_BATCHES * rows)) if BY_NAME[name].slot is Slot.VECTOR else 1
        parts = max(1, parts)
        borders = [count * part // parts for part in range(1, parts)]
        for first, last in zip([0, *borders], [*borders, None], strict=True):
            wanted.append(Range(namespace=name, first=first, last=last, done=first))
    fixed = [part for part in await writer.divide(wanted) if part.namespace in names]
    return sorted(fixed, key=lambda part: (names.index(part.namespace), part.first))


async def copy(
    reader: Reader,
    writer: Writer,
    namespaces: Iterable[str],
    done: Mapping[str, int],
    rows: int,
    meter: Meter,
) -> int:
    """Copy whole streams in the given order, one after the other; returns the records written now."""
    jobs = [Range(namespace=name, done=done.get(name, 0)) for name in namespaces]
    return await copy_ranges(reader, writer, jobs, rows, meter)


async def copy_ranges(
    reader: Reader, writer: Writer, jobs: Sequence[Range], rows: int, meter: Meter, *, lanes: int = 1
) -> int:
    """Copy what `ranges_of` named, in its order, in up to `lanes` lanes; returns the records written now."""
    written = 0
    async with contextlib.AsyncExitStack() as stack:
        writers: list[Writer] = [writer]
        if isinstance(writer, ParallelWriter):
            for _ in range(min(lanes, len(jobs)) - 1):
                writers.append(await stack.enter_async_context(writer.beside()))

        def lane(mine: Writer) -> Work[Range]:
            async def work(part: Range) -> None:
                nonlocal written
                with meter.stream(part.namespace):
                    written += await _copy_range(reader, mine, part, rows, meter)

            return work

        await in_lanes(jobs, [lane(mine) for mine in writers])
    meter.tell()
    return written


async def _copy_range(reader: Reader, writer: Writer, part: Range, rows: int, meter: Meter) -> int:
    if part.last is not None and part.done >= part.last:
        return 0
    last: tuple[asyncio.Task[None], Batch] | None = None
    written = 0

    async def settle() -> None:
        nonlocal written
        if last is not None:
            await last[0]
            failpoint(Point.BATCH_COMMITTED)
            written += len(last[1])
            meter.add(len(last[1]), last[1].size, part.namespace)

    try:
        async with closed(reader.read(part.namespace, skip=part.done, stop=part.last, rows=rows)) as stream:
            async for batch in stream:
                # One batch is written while the next is read and encoded; commits stay in order.
                encoded = await asyncio.to_thread(writer.encode, batch)
                await settle()
                last = asyncio.create_task(writer.write(encoded)), batch
        await settle()
    finally:
        if last is not None:
            # Never leave a write behind, nor its error: the connection must be quiet when it is closed.
            last[0].cancel()
            await asyncio.gather(last[0], return_exceptions=True)
    return written
