"""What becomes of records that a target cannot hold: put aside where the spec says so, told, and left out everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from hybridrag.errors import PlanRefused, SourceRefused
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.data import BadRecord
from hybridrag.model.events import Quarantined
from hybridrag.model.findings import Examination, Refusal
from hybridrag.model.plan import HazardKind

from .base import Context, Part

SHOWN = 5
"""Records that an error names."""


def keeping(context: Context) -> contextlib.AbstractContextManager[Callable[[BadRecord], None] | None]:
    """Where bad records go: into the quarantine, or nowhere."""
    if not context.quarantine:
        return contextlib.nullcontext()
    return context.memory.quarantine(context.database, context.part.move.migration_id)


def quarantined(context: Context, left_out: LeftOut) -> str:
    """Tell of them, with their file; returns the same in a few words, none where there are none."""
    if not left_out.total:
        return ""
    file = context.memory.quarantine_file(context.database, context.part.move.migration_id)
    context.emit(
        Quarantined(
            step=context.step.id,
            database=context.database,
            records=left_out.total,
            streams=left_out.streams,
            file=str(file),
        )
    )
    return f", {left_out.total:,} in quarantine"


def accept(context: Context, part: Part, examination: Examination, state: str) -> None:
    """Raises SourceRefused or PlanRefused for what may not be left behind unasked.

    What was found is remembered with the source's fingerprint `state`, so that the next plan can say it without a pass.
    """
    refusal = Refusal(
        backend=part.backend.name,
        state=state,
        records=part.total,
        refused=tuple(examination.refused[:SHOWN]),
        refused_total=examination.refused_total,
        lost=tuple((space, name, count) for (space, name), count in sorted(examination.lost.items())),
    )
    found = bool(refusal.refused_total or refusal.lost)
    context.memory.put_refusal(context.database, part.move.id, refusal if found else None)
    if refusal.refused_total and not context.quarantine:
        raise cannot_hold(context.database, refusal)
    if refusal.lost and HazardKind.FIELD_LOSS not in context.allowed:
        raise PlanRefused(
            no_place(refusal),
            hint="to move everything else and leave them behind: hybridrag apply --allow field_loss",
        )


def cannot_hold(database: str, refusal: Refusal) -> SourceRefused:
    """The error that names records which the target cannot hold."""
    shown = "; ".join(f'{space} "{key}": {reason}' for space, key, reason in refusal.refused)
    left = refusal.refused_total - len(refusal.refused)
    more = f" (and {left:,} more)" if left else ""
    return SourceRefused(
        f'backend "{refusal.backend}" cannot hold {refusal.refused_total:,} of '
        f"{refusal.records:,} records: {shown}{more}",
        hint="repair or remove these records in the source, then run hybridrag apply again; or have them put aside: "
        f"databases.{database}.migration.on_bad_record: quarantine",
    )


def no_place(refusal: Refusal) -> str:
    """The fields that the target has no place for, in words."""
    shown = ", ".join(f"{space}.{name} ({count:,} records)" for space, name, count in refusal.lost)
    return f'backend "{refusal.backend}" has no place for these fields: {shown}'
