"""Run a blocking stream of batches in a thread, a few batches ahead of its reader."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

from hybridrag.model.data import Batch

_END = object()


def until(batches: Iterator[Batch], stop: int | None) -> Iterator[Batch]:
    """The batches up to position `stop`; the rest of the stream is not read."""
    for batch in batches:
        yield batch.up_to(stop)
        if stop is not None and batch.position >= stop:
            return


@contextlib.asynccontextmanager
async def closed(stream: AsyncIterator[Batch]) -> AsyncIterator[AsyncIterator[Batch]]:
    """The stream; it has ended, with its session and its thread, when the block has, whatever ended that."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def ahead(open_stream: Callable[[], Iterator[Batch]], *, depth: int = 1) -> AsyncIterator[Batch]:
    """Yield the stream's batches; the next `depth` wait ready meanwhile. Its exception is raised here."""
    loop = asyncio.get_running_loop()
    slots: asyncio.Queue[object] = asyncio.Queue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def hand_over(item: object) -> None:
        loop.call_soon_threadsafe(slots.put_nowait, item)

    def pump() -> None:
        try:
            for batch in open_stream():
                room.acquire()
                if stopped.is_set():
                    return
                hand_over(batch)
            hand_over(_END)
        except BaseException as error:
            if not stopped.is_set():
                hand_over(error)

    thread = threading.Thread(target=pump, name="hybridrag-read", daemon=True)
    thread.start()
    try:
        while (item := await slots.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            room.release()
            assert isinstance(item, Batch)  # noqa: S101 - narrows the type for the checker
            yield item
    finally:
        stopped.set()
        room.release()
