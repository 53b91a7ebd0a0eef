"""Refusals that every engine has, in one wording. `place` is the place in words: workspace "w" in backend "b", a folder."""

from __future__ import annotations

from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.model.marks import MarkState

COMPLETED = "it is in use by an earlier migration that was completed"
OF_ANOTHER = "it holds the unfinished copy of another database"
MEANWHILE = "another run has taken it over meanwhile"


def workspace_in(workspace: str, backend: str) -> str:
    """A place on a server in words."""
    return f'workspace "{workspace}" in backend "{backend}"'


def cannot_be_written(place: str, why: str, *, way_out: str = "workspace") -> PlanRefused:
    """`way_out`: the key of the database in the spec that gives it another place."""
    free = "workspace" if way_out == "workspace" else "folder"
    return PlanRefused(
        f"{place} cannot be written: {why}",
        hint=f"give the database another {way_out} in the spec, or empty that {free} yourself",
    )


def taken_over(place: str, nothing: str = "changed") -> PlanRefused:
    """Another migration's mark stands there, or none does. `nothing` was done: changed, switched, deleted."""
    return PlanRefused(
        f"{place} was taken over by another migration meanwhile; nothing was {nothing}",
        hint="hybridrag plan shows what is there now",
    )


def not_allowed(place: str, now: MarkState, wanted: MarkState) -> PlanRefused:
    """The copy is ours, but its mark may not become that one."""
    if now is MarkState.SWITCHED:
        return PlanRefused(
            f"the copy in {place} was switched to; it cannot become {wanted.value} again",
            hint="hybridrag plan shows what serves now",
        )
    return PlanRefused(
        f"the copy in {place} is only {now.value}; it cannot become {wanted.value}",
        hint="run hybridrag apply: it copies and verifies first",
    )


def not_patchable(place: str, now: MarkState) -> PlanRefused:
    """Single records are changed only in a whole copy that does not serve."""
    why = "it serves" if now in (MarkState.SWITCHED, MarkState.PUBLISHING) else "it is not finished"
    return PlanRefused(
        f"the copy in {place} is not changed record by record: {why}",
        hint="hybridrag plan shows what is there now",
    )


def busy(place: str) -> BackendUnavailable:
    """Another session holds the lock."""
    return BackendUnavailable(
        f"{place} is being written by another session of hybridrag",
        hint="wait for it to end, then run hybridrag apply",
    )
