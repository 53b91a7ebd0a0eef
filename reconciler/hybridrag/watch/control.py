"""What a daemon obeys: signals and pause requests, also while a document is in hand."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hybridrag.errors import HybridragError
from hybridrag.journal import WatchState

TICK_S = 0.2
Result = TypeVar("Result")


class Cut(Exception):
    """Work that was given up because somebody asked for a pause or the end."""


class Control:
    """`stopping`: to end after the document in hand; `at_once`: without it."""

    def __init__(self, state: WatchState, *, on_ask: Callable[[str], None]) -> None:
        self._state = state
        self._on_ask = on_ask
        self.stopping = False
        self.at_once = False

    def obey_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.end)

    def end(self) -> None:
        """Once: after the document in hand. Twice: at once."""
        self.stopping, self.at_once = True, self.stopping

    def asked(self) -> list[str]:
        """Who asks for a pause."""
        return list(self._state.pauses())

    @property
    def _wish(self) -> str | None:
        if self.stopping:
            return "the end"
        asked: list[str] = []
        with contextlib.suppress(HybridragError):
            asked = self.asked()
        return f"the pause ({', '.join(asked)})" if asked else None

    async def in_hand(self, work: Coroutine[Any, Any, Result], *, may_be_cut: bool) -> Result:
        """The work's own result. Raises Cut, with the work cancelled, where it may be and somebody asks; and at once."""
        task = asyncio.ensure_future(work)
        told = False
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=TICK_S)
                if task.done():
                    break
                wish = self._wish
                if self.at_once or (wish and may_be_cut):
                    raise Cut
                if wish and not told:
                    told = True
                    self._on_ask(f"the document in hand, then {wish}")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
