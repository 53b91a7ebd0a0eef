"""Stops the daemon for a switch, by the pause protocol of `journal.watch_state`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hybridrag.errors import HybridragError, PlanRefused
from hybridrag.journal import WatchState, look_at_watcher
from hybridrag.journal.lease import TTL_S
from hybridrag.model.selection import Selection

from .asking import ASK_S, drained, still_busy

BEATS = 6
"""So often is a request renewed before it would lapse."""
GRACE_S = 10.0
"""Beyond what the document in hand may take: to end LightRAG's process."""
BACK_S = 10.0


class WatcherHalter:
    """See `model.services.Halter`. `path` is the watcher's state, which may not exist yet.

    `drain_s`: how long the document in hand may take; `ttl_s`: how long the pause of a silent run holds.
    """

    def __init__(self, database: str, path: Path, *, drain_s: int, ttl_s: float = TTL_S) -> None:
        self._database = database
        self._path = path
        self._drain_s = drain_s
        self._ttl_s = ttl_s
        self._state: WatchState | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def _owner(self) -> str:
        return f"hybridrag apply ({os.getpid()} on {socket.gethostname()})"

    async def pause(self) -> str:
        self._release()
        self._state = state = WatchState(self._path)
        begun = time.monotonic()
        state.ask_pause(self._owner, ttl_s=self._ttl_s)
        self._keep_fresh(state)
        try:
            within = self._drain_s + GRACE_S
            if not await drained(state, self._owner, within_s=within):
                raise still_busy(
                    self._path,
                    self._database,
                    within,
                    f"hybridrag watch status {self._database}; raise databases.{self._database}.writer.timeout, "
                    f"or stop it: hybridrag watch stop {self._database}",
                )
        except BaseException:
            self._lift()
            raise
        look = look_at_watcher(self._path)
        if look is None or not look.running:
            return "no watcher runs, and none begins to write"
        return f"the watcher drained in {time.monotonic() - begun:.1f} s"

    @contextlib.contextmanager
    def sealed(self) -> Iterator[None]:
        if self._state is None:
            raise PlanRefused("the watcher was not paused by this run", hint="run hybridrag apply again")
        with self._state.sealed(self._owner):
            yield

    async def resume(self, selection: Selection) -> str | None:
        self._lift()
        deadline = time.monotonic() + BACK_S
        while time.monotonic() < deadline:
            look = look_at_watcher(self._path)
            if look is None or not look.running or look.activity is None or look.pauses:
                return None
            if look.activity.state == "waiting":
                return f"the watcher waits: {look.activity.detail}"
            if look.activity.state not in ("paused", "starting"):
                return None
            await asyncio.sleep(ASK_S)
        return f"the watcher is not back after {BACK_S:.0f} s; hybridrag watch status {self._database} follows it"

    def _keep_fresh(self, state: WatchState) -> None:
        self._stop = stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self._ttl_s / BEATS):
                with contextlib.suppress(Exception):  # sealed() finds out whether it mattered
                    if not state.renew_pause(self._owner, ttl_s=self._ttl_s):
                        return

        self._thread = threading.Thread(target=beat, name="hybridrag-pause", daemon=True)
        self._thread.start()

    def _lift(self) -> None:
        state = self._state
        if state is not None:
            with contextlib.suppress(HybridragError):
                state.lift_pause(self._owner)
        self._release()

    def _release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
            self._thread = None
        if self._state is not None:
            self._state.close()
            self._state = None
