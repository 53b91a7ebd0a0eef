"""What a place says of itself: a small document of ours that stands with the data, in every place a database was on.

A backend keeps and gives back the text; only the engine reads it. `revision` is what a backend compares: a note is never
replaced by an older one, nor by another one of the same revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hybridrag.errors import LeaseHeld


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `revision` counts the changes of what serves a database; `document` is JSON text of a few kilobytes."""

    revision: int
    document: str

    def replaces(self, other: Note | None) -> bool:
        """Whether this one may be written where `other` stands."""
        return other is None or other == self or other.revision < self.revision


Notes = Mapping[str, Note]
"""The notes of one place by name; each database of each environment that was ever here has one."""


def overtaken(place: str) -> LeaseHeld:
    """Raised by a backend that finds a note which is not older than the one to be written."""
    return LeaseHeld(
        f"{place} was switched by another run meanwhile; this run changes nothing there",
        hint="hybridrag plan shows what serves now",
    )


def in_use(place: str, holder: str) -> LeaseHeld:
    """Raised by a backend whose place another run, of whatever state folder, is working on."""
    by = f" ({holder})" if holder else ""
    return LeaseHeld(
        f"another run of hybridrag is working on {place}{by}", hint="wait for it, then run hybridrag plan"
    )
