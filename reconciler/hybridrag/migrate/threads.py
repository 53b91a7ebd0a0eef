"""Run a blocking stream of batches in a thread, a few batches ahead of its reader."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from hybridrag.model.data import Batch

_END = object()


def until(batches: Iterator[Batch], stop: int | None) -> Iterator[Batch]:
    """The batches up to position `stop`; the rest of the stream is not read."""
    for batch in batches:
        yield batch.up_to(stop)
        if stop is not None and batch.position >= stop:
            return


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
