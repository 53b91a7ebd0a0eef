"""Runs, leases, checkpoints of a source, and the registry: everything below `state/<environment>`."""

from __future__ import annotations

from .database import Journal, JournalUnreadable
from .lease import Lease
from .reading import (
    ProgressRecord,
    RunRecord,
    is_running,
    known_counts,
    last_run,
    open_pauses,
    progress,
)
from .registry import KeptEntry, Registry, RegistryEntry, RegistryFile, SlotEntry, facts_of

__all__ = [
    "Journal",
    "JournalUnreadable",
    "KeptEntry",
    "Lease",
    "ProgressRecord",
    "Registry",
    "RegistryEntry",
    "RegistryFile",
    "RunRecord",
    "SlotEntry",
    "facts_of",
    "is_running",
    "known_counts",
    "last_run",
    "open_pauses",
    "progress",
]
