"""What is done where a mark stands: one set of rules for all engines. Pure; words in `refusals`, states in `model.marks`."""

from __future__ import annotations

import enum

from hybridrag.model.marks import FINISHED, WITHDRAWN, Mark, MarkState, may_follow
from hybridrag.model.plan import KEPT, owner_of

from .refusals import COMPLETED, OF_ANOTHER, not_allowed, not_patchable, taken_over

RECLAIMED = "reclaimed"
"""The source's fingerprint of a copy taken back: no source has this one, so that all of it is compared."""


class Course(enum.Enum):
    """What a writer does with what stands there."""

    CONTINUE = "go on from the checkpoint"
    CLEAR = "remove it and begin anew"


class Occupied(Exception):
    """Why a writer may not touch what stands there, in words."""


def course(mark: Mark, migration: str, fingerprint: str, replaces: str | None) -> Course:
    """For one mark that a writer finds. Raises Occupied.

    An unfinished copy goes on only for the very state of the source that it counts (decision 11); one that was switched
    to is never gone on with, and gives way only where it is said to be kept (`replaces`: its migration, or KEPT).
    """
    ours = owner_of(mark.migration) == owner_of(migration)
    given_up = ours and replaces in (mark.migration, KEPT)
    if mark.state is MarkState.SWITCHED and not given_up:
        raise Occupied(COMPLETED)
    if not ours:
        raise Occupied(OF_ANOTHER)
    same = mark.migration == migration and mark.state is not MarkState.SWITCHED
    counts_it = mark.state is not MarkState.COPYING or mark.source_fingerprint == fingerprint
    return Course.CONTINUE if same and counts_it else Course.CLEAR


def check_advance(mark: Mark | None, migration: str, state: MarkState, place: str) -> None:
    """Raises PlanRefused where the mark is not this migration's, or may not become `state`."""
    if mark is None or mark.migration != migration:
        raise taken_over(place, "switched")
    if not may_follow(state, mark.state):
        raise not_allowed(place, mark.state, state)


def withdrawn(mark: Mark | None, migration: str, place: str) -> MarkState:
    """The state after a switch is taken back; the same where there was none. Raises PlanRefused."""
    if mark is None or mark.migration != migration:
        raise taken_over(place)
    return WITHDRAWN.get(mark.state, mark.state)


def check_patchable(mark: Mark | None, migration: str, place: str) -> None:
    """Raises PlanRefused unless it is this migration's whole copy, which does not serve."""
    if mark is None or mark.migration != migration:
        raise taken_over(place)
    if mark.state not in FINISHED:
        raise not_patchable(place, mark.state)


def check_reclaimable(mark: Mark, migration: str, place: str) -> None:
    """Raises PlanRefused unless it is a whole copy of this database that was left, or is being taken back already."""
    finished = mark.state is MarkState.SWITCHED or mark.migration == migration
    ours = owner_of(mark.migration) == owner_of(migration)
    if not ours or not finished or mark.state is MarkState.COPYING:
        raise taken_over(place)


def check_overwritable(mark: Mark | None, seen: str | None, place: str) -> None:
    """Raises PlanRefused unless there is no mark, or that of the finished copy that was seen: whoever makes one may be at work."""
    if mark is not None and (mark.migration != seen or mark.state is not MarkState.SWITCHED):
        raise taken_over(place, "overwritten")


def check_removable(mark: Mark | None, seen: str | None, place: str, nothing: str) -> None:
    """Raises PlanRefused where another mark stands than the one that was seen (None: none was)."""
    if mark is not None and mark.migration != seen:
        raise taken_over(place, nothing)
