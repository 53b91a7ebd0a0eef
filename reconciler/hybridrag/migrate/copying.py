"""Copy every stream of a store into another, from the last checkpoint on. Knows records, not products."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hybridrag.failpoints import Point, failpoint
from hybridrag.model.data import Batch
from hybridrag.model.ports import Reader, Writer

from .progress import Meter


async def copy(
    reader: Reader, writer: Writer, namespaces: Iterable[str], done: dict[str, int], rows: int, meter: Meter
) -> int:
    """Copy the streams in the given order; returns the records written now. `done` are committed ones by stream."""
    last: tuple[asyncio.Task[None], Batch] | None = None
    written = 0

    async def settle() -> None:
        nonlocal written
        if last is not None:
            await last[0]
            failpoint(Point.BATCH_COMMITTED)
            written += len(last[1])
            meter.add(len(last[1]), last[1].size)

    try:
        for namespace in namespaces:
            async for batch in reader.read(namespace, skip=done.get(namespace, 0), rows=rows):
                # One batch is written while the next is read and encoded; commits stay in order.
                encoded = await asyncio.to_thread(writer.encode, batch)
                await settle()
                last = asyncio.create_task(writer.write(encoded)), batch
        await settle()
    finally:
        if last is not None and not last[0].done():
            # Never leave a write behind: the connection must be quiet when it is closed.
            last[0].cancel()
            await asyncio.gather(last[0], return_exceptions=True)
    meter.tell()
    return written
