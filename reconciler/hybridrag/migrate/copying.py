"""Copy every stream of a store into another, from the last checkpoint on. Knows records, not products."""

from __future__ import annotations

from collections.abc import Iterable

from hybridrag.model.ports import Reader, Writer

from .progress import Meter



async def copy(
    reader: Reader, writer: Writer, namespaces: Iterable[str], done: dict[str, int], rows: int, meter: Meter
) -> int:
    """Copy the streams in the given order; returns the records written now. `done` are committed ones by stream."""
    written = 0
    for namespace in namespaces:
        async for batch in reader.read(namespace, skip=done.get(namespace, 0), rows=rows):
            await writer.write(batch)
            written += len(batch)
            meter.add(len(batch), batch.size)
    meter.tell()
    return written
