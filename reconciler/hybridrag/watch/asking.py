"""Asking a daemon to pause, from outside: until nobody writes, whether a daemon runs or not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from hybridrag.errors import PlanRefused
from hybridrag.journal import WatchState, WriterLock, look_at_watcher

ASK_S = 0.1


async def drained(state: WatchState, owner: str, *, within_s: float) -> bool:
    """Whether the request of `owner` was acknowledged in time.

    Where no daemon is there to do it, the lock proves that no process of a dead one writes any more, and the
    request is acknowledged in its place: a daemon that starts meanwhile finds the request first.
    """
    deadline = time.monotonic() + within_s
    while not state.is_acknowledged(owner):
        with contextlib.closing(WriterLock(state.path)) as lock:
            if lock.take():
                state.acknowledge()
                continue
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(ASK_S)
    return True


def still_busy(path: Path, database: str, within_s: float, hint: str) -> PlanRefused:
    """Why a pause did not come about, in words."""
    look = look_at_watcher(path)
    if look is None or not look.running or look.activity is None:
        doing = "a process that writes for it is still there, but no daemon answers"
    else:
        doing = f"it is {look.activity.state}"
        doing += f" ({look.activity.detail})" if look.activity.detail else ""
        doing += f", pid {look.pid}"
    return PlanRefused(
        f'the watcher of "{database}" did not pause within {within_s:.0f} s: {doing}; the request was taken back',
        hint=hint,
    )
