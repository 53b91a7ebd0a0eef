"""Warnings while it is early: files that grow too big, ingesting that becomes slow. Only for slots in JSON files."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence

from hybridrag.journal import WatchState
from hybridrag.model.room import shown
from hybridrag.model.watching import Fate, Outcome

from .view import View

LOG = logging.getLogger("hybridrag.watch")
GROWN = 1.1
"""A warning is repeated when what it is about has grown by so much."""
RECORD_S = 1800.0
DAY_S = 86400.0
SAMPLE = (5, 2.0)
"""Documents and seconds from which on a speed says something."""
BASELINE = (5, 20)
"""Samples that a baseline needs, and those it is the median of."""
SPEED = "speed"


def is_due(value: float, before: float | None) -> bool:
    """Whether to warn about a value, after what was warned about last."""
    return before is None or value >= before * GROWN


class Monitor:
    """What it warned about and what it measured outlives the daemon, in its state."""

    def __init__(self, state: WatchState) -> None:
        self._state = state
        self._recorded: tuple[float, dict[str, int]] = (0.0, {})
        self._documents, self._characters, self._seconds = 0, 0, 0.0

    # --- sizes ---

    def look(self, view: View) -> None:
        """Record the sizes of a database's JSON files, and warn about those above their thresholds."""
        sizes = dict(view.sizes())
        if sizes:
            self._record(sizes)
        limits, name = view.thresholds, view.watched.database
        warned = self._state.warned()
        measured = {f"file:{file}": (file, size, limits.file_bytes) for file, size in sizes.items()}
        if sizes:
            measured["total"] = ("all files", sum(sizes.values()), limits.total_bytes)
        for subject in warned.keys() - measured.keys() - {SPEED}:
            self._state.drop_warned(subject)
        if not sizes and SPEED in warned:
            self._state.drop_warned(SPEED)
        for subject, (what, size, limit) in measured.items():
            before = warned.get(subject)
            if size <= limit:
                if before is not None:
                    self._state.drop_warned(subject)
                continue
            if not is_due(size, before[0] if before else None):
                continue
            advice = "move it to a database server" if subject == "total" else "consider a database server"
            LOG.warning(
                '%s of "%s": %s, above the threshold of %s; %s: %s',
                what, name, shown(size), shown(limit), advice, view.way_out,
                extra={"event": "size", "file": what, "bytes": size, "threshold": limit, "command": view.way_out},
            )  # fmt: skip
            self._state.put_warned(subject, size)

    def _record(self, sizes: dict[str, int]) -> None:
        at, before = self._recorded
        since = time.time() - at
        if since > DAY_S or (since > RECORD_S and sizes != before):
            self._state.put_sizes(sizes)
            self._recorded = time.time(), sizes

    # --- speed ---

    def note(self, view: View, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Add what one group took. Enough of them make a sample, which is compared with the median of those before."""
        done = [outcome for outcome in outcomes if outcome.fate is Fate.INGESTED]
        if not done or not view.in_files:
            return
        self._documents += len(done)
        self._characters += sum(outcome.characters for outcome in done)
        self._seconds += seconds
        if self._documents < SAMPLE[0] or self._seconds < SAMPLE[1]:
            return
        sample = (self._documents, self._characters, self._seconds)
        self._documents, self._characters, self._seconds = 0, 0, 0.0
        self.sampled(view, *sample)

    def sampled(self, view: View, documents: int, characters: int, seconds: float) -> None:
        """Compare a sample, then let it become part of the baseline."""
        least, most = BASELINE
        speeds = [count / took for _, _, count, took in self._state.rates()[-most:] if took > 0]
        self._state.put_rate(documents, characters, seconds)
        if len(speeds) < least:
            return
        usual, now = statistics.median(speeds), characters / seconds
        slower = 1 - now / usual if usual > 0 else 0.0
        before = self._state.warned().get(SPEED)
        if slower <= view.thresholds.ingest_slowdown:
            if before is not None:
                self._state.drop_warned(SPEED)
            return
        if not is_due(1 / (1 - slower) if slower < 1 else float("inf"), _times(before)):
            return
        LOG.warning(
            'ingesting into "%s" is %.0f %% slower than usual: %s characters a second instead of %s; '
            "consider a database server: %s",
            view.watched.database, 100 * slower, f"{now:,.0f}", f"{usual:,.0f}", view.way_out,
            extra={
                "event": "slow", "slower": round(slower, 3), "characters_s": round(now, 1),
                "usual_characters_s": round(usual, 1), "command": view.way_out,
            },
        )  # fmt: skip
        self._state.put_warned(SPEED, slower)


def _times(before: tuple[float, float] | None) -> float | None:
    """How many times as long as usual it took when it was warned about."""
    if before is None:
        return None
    return 1 / (1 - before[0]) if before[0] < 1 else float("inf")
