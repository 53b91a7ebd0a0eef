"""What a run leaves in the journal for those who look from elsewhere: its progress, and counts of big files."""

from __future__ import annotations

import time
from collections.abc import Collection

from hybridrag.journal import Journal, StateBusy
from hybridrag.model.events import Emit, Event, Progress, Quarantined, StepStarted
from hybridrag.model.facts import Observation
from hybridrag.planner import JSON, store_thing

INTERVAL_S = 1.0


class ProgressRecorder:
    """Passes every event on; keeps where the run is, at most once a second within one phase."""

    def __init__(self, journal: Journal, run: str, databases: Collection[str], emit: Emit) -> None:
        self._journal = journal
        self._run = run
        self._databases = databases
        self._emit = emit
        self._kept: tuple[str, str, float] = ("", "", 0.0)

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if isinstance(event, StepStarted):
            verb = event.step.partition(".")[0]
            event = Progress(step=event.step, phase=verb, records=0, total=0, bytes=0, rate=None, eta_s=None)
        if not isinstance(event, Progress):
            return
        database = event.step.partition(".")[2].partition("@")[0]  # of a part: its database
        step, phase, at = self._kept
        now = time.monotonic()
        if database not in self._databases or (
            (step, phase) == (event.step, event.phase) and now - at < INTERVAL_S
        ):
            return
        self._kept = (event.step, event.phase, now)
        try:
            self._journal.put_progress(database, self._run, event)
        except StateBusy:
            return  # it only informs: no reason to stop a copy


class QuarantineTally:
    """Passes every event on; counts what was put into quarantine, of each part as it was told last."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._parts: dict[str, tuple[str, int]] = {}

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if isinstance(event, Quarantined):
            self._parts[event.step.partition(".")[2]] = (event.database, event.records)

    def counts(self) -> dict[str, int]:
        """Records by database."""
        found: dict[str, int] = {}
        for database, records in self._parts.values():
            found[database] = found.get(database, 0) + records
        return found


def counts_of(observation: Observation, database: str) -> dict[str, tuple[str, int]]:
    """Exact counts of a database's files with the identities of what was counted, by namespace."""
    found: dict[str, tuple[str, int]] = {}
    for thing in observation.facts:
        if not thing.startswith(store_thing(database, JSON)):
            continue
        told = {**observation.detail(thing), **observation.of(thing)}
        for name, identity in observation.detail(thing).items():
            kind, _, namespace = name.partition("/")
            count = told.get(f"records/{namespace}")
            if kind == "counted" and isinstance(count, int):
                found[namespace] = (str(identity), count)
    return found
