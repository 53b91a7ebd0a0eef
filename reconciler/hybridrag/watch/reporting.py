"""What the daemon is doing, for everybody who looks: written when it changes, and not for every document."""

from __future__ import annotations

import time
from dataclasses import replace

from hybridrag.journal import Activity, WatchState

OFTEN_S = 1.0


class Report:
    """The activity as it was last said, and as it was last written."""

    def __init__(self, state: WatchState) -> None:
        self._state = state
        self._written: tuple[float, Activity | None] = (0.0, None)
        self.now = Activity(state="starting")

    def say(self, state: str, detail: str = "", **counts: object) -> None:
        """A new state is written at once; counts, and the details of the same state, once a second."""
        self.now = replace(self.now, state=state, detail=detail, **counts)  # type: ignore[arg-type]
        at, before = self._written
        if before == self.now:
            return
        if before is None or before.state != state or time.monotonic() - at >= OFTEN_S:
            self._state.put_activity(self.now)
            self._written = time.monotonic(), self.now

    def was_written(self, activity: Activity) -> None:
        """Somebody else wrote it, in a transaction of its own."""
        self.now = activity
        self._written = time.monotonic(), activity
