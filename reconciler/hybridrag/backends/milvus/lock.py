"""The writer's lock on a workspace: a claim in the ledger that is renewed while we live.

Milvus has no locks and no compare-and-swap, but reads that see every earlier write. Who wants the lock writes a claim
first and reads all claims then: of two at the same moment at least one sees the other, and takes its own back.
A claim that did not change for `TTL_S` belongs to nobody; it is watched on our own clock, so that clocks may differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import time
from typing import Any

from hybridrag.errors import BackendUnavailable
from hybridrag.model import fence

from .client import Connection
from .collections import LEDGER
from .ledger import put, rows

TTL_S = 15.0
BEAT_S = 3.0
PATIENCE_S = 25.0


class Lock:
    """Held between `take` and `release`; `check` tells whether it still is."""

    def __init__(self, opened: Connection, workspace: str) -> None:
        self._opened = opened
        self._prefix = f"claim:{workspace}:"
        self._key = self._prefix + secrets.token_hex(8)
        self._beats = 0
        self._renewed = 0.0
        self._lapsed = False
        self._task: asyncio.Task[None] | None = None

    async def take(self) -> bool:
        """Wait for the lock; False when another session keeps it longer than a dead one could."""
        seen: dict[str, tuple[Any, float]] = {}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            others = await self._others(seen)
            if not others:
                await self._claim()
                if not (others := await self._others(seen)):
                    self._task = asyncio.create_task(self._beat())
                    return True
                await self._withdraw()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(random.uniform(0.2, 0.6))  # noqa: S311 - so that two do not keep in step

    async def _others(self, seen: dict[str, tuple[Any, float]]) -> list[str]:
        """Claims of living sessions; those of dead ones are removed."""
        now = time.monotonic()
        alive = []
        for key, claim in (await rows(self._opened, self._prefix)).items():
            if key == self._key:
                continue
            if seen.get(key, (None, 0.0))[0] != claim:
                seen[key] = (claim, now)
            if now - seen[key][1] > TTL_S or _ended(claim):
                await self._opened.call("delete", LEDGER, ids=[key])
            else:
                alive.append(key)
        return alive

    async def _claim(self) -> None:
        started = time.monotonic()
        claim = {"host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        await put(self._opened, self._key, claim)
        self._beats += 1
        self._renewed = started

    async def _withdraw(self) -> None:
        await self._opened.call("delete", LEDGER, ids=[self._key])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if self._is_late():
                self._lapsed = True  # others may hold it by now; to claim it again would deceive `check`
                return
            with contextlib.suppress(
                BackendUnavailable
            ):  # it may come back in time; `check` sees whether it did
                await self._claim()

    def check(self) -> None:
        """Raise BackendUnavailable when others may hold the lock by now (we slept, or the server was away).

        Raises LeaseHeld when another run has taken the lease.
        """
        fence.check()
        if self._lapsed or self._is_late():
            raise BackendUnavailable(
                "this session could not keep its lock on the workspace (it slept, or the server did not answer)",
                hint="hybridrag apply goes on from the last checkpoint",
            )

    def _is_late(self) -> bool:
        return time.monotonic() - self._renewed > TTL_S - BEAT_S

    async def release(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            with contextlib.suppress(BackendUnavailable):  # it expires by itself
                await self._withdraw()


def _ended(claim: dict[str, Any]) -> bool:
    """Whether the claim's process was on this machine and is gone."""
    if claim["host"] != socket.gethostname() or claim["pid"] == os.getpid():
        return False
    try:
        os.kill(claim["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
