"""Several streams, or ranges of one, at the same time: each lane takes the next job whose forerunners are done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from hybridrag.model.data import AFTER


class Job(Protocol):
    """Anything about one stream."""

    @property
    def namespace(self) -> str: ...


J = TypeVar("J", bound=Job)
Work = Callable[[J], Awaitable[None]]


async def in_lanes(jobs: Sequence[J], lanes: Sequence[Work[J]]) -> None:
    """Do all jobs, one at a time in each lane, in their order; a stream waits for the one that it needs (`AFTER`).

    The first error stops every lane and is raised; nothing is running any more when this returns.
    """
    waiting, open_jobs = list(jobs), [job.namespace for job in jobs]
    changed = asyncio.Condition()

    def ready() -> J | None:
        for job in waiting:
            if AFTER.get(job.namespace) not in open_jobs:
                waiting.remove(job)
                return job
        return None

    async def lane(work: Work[J]) -> None:
        while waiting:
            async with changed:
                while (job := ready()) is None and waiting:
                    await changed.wait()
            if job is None:
                return
            await work(job)
            async with changed:
                open_jobs.remove(job.namespace)
                changed.notify_all()

    await all_or_none(lane(work) for work in lanes)


async def all_or_none(coroutines: Sequence[Coroutine[Any, Any, None]] | Any) -> None:
    """Await all of them; the first error, or being cancelled, ends the others before it is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
