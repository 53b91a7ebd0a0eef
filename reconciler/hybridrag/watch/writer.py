"""The process in which LightRAG writes: started only when nobody asks for a pause, and ended before a pause counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hybridrag.errors import HybridragError
from hybridrag.journal import Activity, WatchState
from hybridrag.model.watching import Document, Ingester, Outcome

from .control import Control, Cut
from .view import MakeIngester, View


class Writer:
    """At most one process at a time. `log` takes what it prints, `inherit` is the lock that it keeps."""

    def __init__(
        self, state: WatchState, control: Control, make: MakeIngester, *, log: Path, inherit: tuple[int, ...]
    ) -> None:
        self._state = state
        self._control = control
        self._make = make
        self._log = log
        self._inherit = inherit
        self._ingester: Ingester | None = None
        self._used = 0.0
        self.view: View | None = None

    @property
    def is_open(self) -> bool:
        return self._ingester is not None

    @property
    def idle_s(self) -> float:
        """For how long a process has been there without being needed."""
        return time.monotonic() - self._used if self.is_open else 0.0

    async def open(self, read: Callable[[], View], activity: Activity) -> Mapping[str, str]:
        """Start on what serves now; what the database knows. Raises Cut where a pause holds, else as `Ingester.start`."""
        if not await asyncio.to_thread(self._state.may_write, activity):
            raise Cut
        # Only now: before that somebody could still have switched without us.
        self.view = read()
        self._ingester = self._make(self.view, log=self._log, inherit=self._inherit)
        try:
            await self._control.in_hand(self._ingester.start(), may_be_cut=True)
            known = await self._control.in_hand(self._ingester.known(), may_be_cut=True)
        except BaseException:
            await self.close()
            raise
        self._used = time.monotonic()
        return known

    async def ingest(self, documents: Sequence[Document]) -> list[Outcome]:
        """As `Ingester.ingest`; afterwards the process is gone, where it raised."""
        if self._ingester is None:
            raise HybridragError("no writer is open")
        try:
            return await self._control.in_hand(self._ingester.ingest(documents), may_be_cut=False)
        except BaseException:
            await self.close()
            raise
        finally:
            self._used = time.monotonic()

    async def close(self) -> None:
        """Returns when nothing is written any more."""
        ingester, self._ingester = self._ingester, None
        if ingester is not None:
            await ingester.stop()
