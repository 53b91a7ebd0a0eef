"""Runs, leases, checkpoints of a source, and the registry: everything below `state/<environment>`."""

from __future__ import annotations

from .database import Journal, JournalUnreadable
from .lease import Lease
from .reading import RunRecord, last_run, open_pauses
from .registry import Registry, RegistryEntry, RegistryFile, facts_of

__all__ = [
    "Journal",
    "JournalUnreadable",
    "Lease",
    "Registry",
    "RegistryEntry",
    "RegistryFile",
    "RunRecord",
    "facts_of",
    "last_run",
    "open_pauses",
]
