"""Reading ahead in a thread: the same batches in order, its error at the right place, and nothing left running."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from hybridrag.migrate.threads import ahead
from hybridrag.model.data import Batch


class Source:
    """A stream that counts what was taken from it."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.taken = 0
        self.closed = threading.Event()

    def __call__(self) -> Iterator[Batch]:
        try:
            for number in range(1, self.count + 1):
                self.taken = number
                yield Batch(namespace="nodes", position=number, keys=[str(number)], fields=[{}])
            if self.error:
                raise self.error
        finally:
            self.closed.set()


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hybridrag-read"]


def _gone() -> bool:
    deadline = time.monotonic() + 5
    while _readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _readers()


async def test_all_batches_arrive_in_order_then_the_error() -> None:
    """What was read before the damage is handed over before the damage is told."""
    source = Source(5, ValueError("damaged"))
    found: list[int] = []

    async def read() -> None:
        async for batch in ahead(source):
            found.append(batch.position)
            await asyncio.sleep(0)

    with pytest.raises(ValueError, match="damaged"):
        await read()
    assert found == [1, 2, 3, 4, 5]
    assert [batch.position async for batch in ahead(Source(3))] == [1, 2, 3]
    assert await asyncio.to_thread(_gone)


async def test_a_slow_reader_is_never_far_behind() -> None:
    """Memory stays bounded: only `depth` batches wait, one more is being read."""
    source = Source(100)
    most = 0
    async for batch in ahead(source, depth=2):
        await asyncio.sleep(0.002)
        most = max(most, source.taken - batch.position)
        if batch.position == 30:
            break
    assert 1 <= most <= 3


async def test_a_reader_that_stops_early_lets_the_thread_end_and_the_file_be_closed() -> None:
    """Also when the consumer fails, and when its task is cancelled."""
    sources = [Source(1000) for _ in range(3)]
    stream = ahead(sources[0])
    assert (await anext(stream)).position == 1
    await stream.aclose()  # type: ignore[attr-defined]

    async def fail() -> None:
        stream = ahead(sources[1])
        try:
            async for _ in stream:
                raise RuntimeError
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    with pytest.raises(RuntimeError):
        await fail()

    async def forever() -> None:
        async for _ in ahead(sources[2]):
            await asyncio.sleep(60)

    task = asyncio.create_task(forever())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    closed = [await asyncio.to_thread(source.closed.wait, 5) for source in sources]
    assert closed == [True] * 3
    assert all(source.taken < 10 for source in sources)
    assert await asyncio.to_thread(_gone)


def test_a_loop_that_ends_first_leaves_no_noise() -> None:
    """The thread may still be reading when the program is interrupted."""
    source = Source(1000)

    async def first() -> int:
        stream = ahead(source)
        return (await anext(stream)).position

    assert asyncio.run(first()) == 1
    assert source.closed.wait(5)
    assert _gone()
