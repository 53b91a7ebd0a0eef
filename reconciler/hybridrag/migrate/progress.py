"""Counting a long pass: records, bytes, rate and time left, told at most a few times a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from hybridrag.model.events import Emit, Progress

_INTERVAL_S = 0.2
_SETTLE_S = 0.5
"""Before this time a rate says nothing."""


class Meter:
    """One phase of one step. `total` is in records and may be an estimate; `start` were done in an earlier run."""

    def __init__(
        self,
        emit: Emit,
        step: str,
        phase: str,
        total: int,
        *,
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emit, self._step, self._phase = emit, step, phase
        self._total = total
        self._start = start
        self._clock = clock
        self._began = self._told = clock()
        self.records = start
        self.bytes = 0

    def add(self, records: int, size: int) -> None:
        """Count what was just done."""
        self.records += records
        self.bytes += size
        if self._clock() - self._told >= _INTERVAL_S:
            self.tell()

    def tell(self) -> None:
        """Emit where we are."""
        self._told = self._clock()
        spent = self._told - self._began
        done = self.records - self._start
        rate = done / spent if spent >= _SETTLE_S and done else None
        left = max(0, self._total - self.records)
        self._emit(
            Progress(
                step=self._step,
                phase=self._phase,
                records=self.records,
                total=max(self._total, self.records),
                bytes=self.bytes,
                rate=rate,
                eta_s=left / rate if rate else None,
            )
        )
