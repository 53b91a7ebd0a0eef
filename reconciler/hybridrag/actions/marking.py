"""Marks on a target, also where a cut connection hides whether one was made: then it is read back, not guessed."""

from __future__ import annotations

import asyncio

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.events import Warned
from hybridrag.model.facts import Facts
from hybridrag.model.marks import MarkState

from .base import Context, Part

ATTEMPTS = 5
PAUSE_S = 0.5


async def mark(context: Context, part: Part, state: MarkState, fingerprint: str | None = None) -> None:
    """See `Store.mark`. Raises BackendUnavailable where it was not made, or where nobody can say."""
    try:
        await part.target.mark(part.move.migration_id, state, fingerprint)
    except BackendUnavailable as error:
        name = part.target.backend
        found = await _read_back(part)
        if found is None:
            raise BackendUnavailable(
                f'whether the copy in backend "{name}" was marked as {state.value} is not known: {error.what}; it does not '
                "answer since",
                hint="hybridrag apply finds out, and goes on from there",
            ) from error
        facts, _ = found
        if (facts.get("migration"), facts.get("state")) != (part.move.migration_id, state):
            raise BackendUnavailable(
                f'the copy in backend "{name}" was not marked as {state.value} (it was asked again): {error.what}',
                where=error.where,
                hint=error.hint,
            ) from error
        told = f'the connection was lost while the copy was marked as {state.value}; asked again, backend "{name}" has the mark'
        context.emit(Warned(step=context.step.id, message=told))


async def tell_committed(context: Context, part: Part) -> None:
    """After a copy that was cut off: say how much of it is on the target for sure."""
    facts, details = await _read_back(part) or ({}, {})
    records = details.get("checkpoint_records")
    if facts.get("migration") == part.move.migration_id and isinstance(records, int):
        told = f'backend "{part.target.backend}" was asked again: {records:,} records of the copy are committed there'
        context.emit(Warned(step=context.step.id, message=told))


async def _read_back(part: Part) -> tuple[Facts, Facts] | None:
    """(facts, details) of what stands on the target now; None while it does not answer."""
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        try:
            return await part.target.observe()
        except HybridragError:
            continue
    return None
