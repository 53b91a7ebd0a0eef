"""Runs, leases, checkpoints of a source, and the registry: everything below `state/<environment>`."""

from __future__ import annotations

from .database import Journal
from .found import refusals, served_counts
from .lease import Holder, Lease, take_away
from .reading import (
    ProgressRecord,
    RunDetail,
    RunRecord,
    StepRecord,
    begun_switches,
    holder,
    is_running,
    known_counts,
    last_run,
    open_pauses,
    problem,
    progress,
    run_of_plan,
    run_steps,
    runs,
)
from .registry import KeptEntry, Registry, RegistryEntry, RegistryFile, SlotEntry, facts_of
from .state_file import JournalUnreadable, StateBusy
from .watch_look import WatchLook, look_at_watcher
from .watch_state import BY_HAND, Activity, WatchState, WriterLock, watch_path

__all__ = [
    "BY_HAND",
    "Activity",
    "Holder",
    "Journal",
    "JournalUnreadable",
    "KeptEntry",
    "Lease",
    "ProgressRecord",
    "Registry",
    "RegistryEntry",
    "RegistryFile",
    "RunDetail",
    "RunRecord",
    "SlotEntry",
    "StateBusy",
    "StepRecord",
    "WatchLook",
    "WatchState",
    "WriterLock",
    "begun_switches",
    "facts_of",
    "holder",
    "is_running",
    "known_counts",
    "last_run",
    "look_at_watcher",
    "open_pauses",
    "problem",
    "progress",
    "refusals",
    "run_of_plan",
    "run_steps",
    "runs",
    "served_counts",
    "take_away",
    "watch_path",
]
