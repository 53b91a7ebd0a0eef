"""Counting a long pass: records, bytes, rate and time left, of the whole and of each stream; told a few times a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hybridrag.model.events import Emit, Progress, StreamProgress

_INTERVAL_S = 0.2
_SETTLE_S = 0.5
"""Before this time a rate says nothing."""


@dataclass(slots=True)
class _Stream:
    """One stream that is being worked on, by `lanes` of them; `records` with, `now` without those of an earlier run."""

    began: float
    records: int
    now: int = 0
    lanes: int = 0


class Meter:
    """One phase of one step. `total` is in records and may be an estimate; `start` were done in an earlier run.

    `totals` and `starts` are the same by stream, where they are known.
    """

    def __init__(
        self,
        emit: Emit,
        step: str,
        phase: str,
        total: int,
        *,
        start: int = 0,
        totals: Mapping[str, int] | None = None,
        starts: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emit, self._step, self._phase = emit, step, phase
        self._total = total
        self._start = start
        self._totals, self._starts = totals or {}, starts or {}
        self._streams: dict[str, _Stream] = {}
        self._clock = clock
        self._began = self._told = clock()
        self.records = start
        self.bytes = 0

    @contextlib.contextmanager
    def stream(self, namespace: str) -> Iterator[None]:
        """While this stream, or a range of it, is worked on."""
        found = self._streams.setdefault(namespace, _Stream(self._clock(), self._starts.get(namespace, 0)))
        found.lanes += 1
        try:
            yield
        finally:
            found.lanes -= 1

    def add(self, records: int, size: int, namespace: str | None = None) -> None:
        """Count what was just done."""
        self.records += records
        self.bytes += size
        if namespace is not None and (found := self._streams.get(namespace)) is not None:
            found.records += records
            found.now += records
        if self._clock() - self._told >= _INTERVAL_S:
            self.tell()

    def tell(self) -> None:
        """Emit where we are."""
        now = self._told = self._clock()
        total = max(self._total, self.records)
        rate, eta_s = _speed(self.records - self._start, now - self._began, total - self.records)
        self._emit(
            Progress(
                step=self._step,
                phase=self._phase,
                records=self.records,
                total=total,
                bytes=self.bytes,
                rate=rate,
                eta_s=eta_s,
                streams=tuple(
                    self._told_of(name, found, now) for name, found in self._streams.items() if found.lanes
                ),
            )
        )

    def _told_of(self, name: str, found: _Stream, now: float) -> StreamProgress:
        total = max(self._totals.get(name, 0), found.records)
        rate, eta_s = _speed(found.now, now - found.began, total - found.records)
        return StreamProgress(namespace=name, records=found.records, total=total, rate=rate, eta_s=eta_s)


def _speed(done: int, spent: float, left: int) -> tuple[float | None, float | None]:
    """(records per second, seconds left); None while they say nothing."""
    rate = done / spent if spent >= _SETTLE_S and done else None
    return rate, left / rate if rate else None
