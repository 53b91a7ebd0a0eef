"""What becomes of records that a target cannot hold: put aside where the spec says so, told, and left out everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from hybridrag.errors import PlanRefused, SourceUnreadable
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.data import BadRecord
from hybridrag.model.events import Quarantined
from hybridrag.model.findings import Examination
from hybridrag.model.plan import HazardKind

from .base import Context, Part


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


def accept(context: Context, part: Part, examination: Examination) -> None:
    """Raises SourceUnreadable or PlanRefused for what may not be left behind unasked."""
    if examination.refused_total and not context.quarantine:
        shown = "; ".join(f'{space} "{key}": {reason}' for space, key, reason in examination.refused[:5])
        more = f" (and {examination.refused_total - 5:,} more)" if examination.refused_total > 5 else ""
        raise SourceUnreadable(
            f'backend "{part.backend.name}" cannot hold {examination.refused_total:,} of '
            f"{part.total:,} records: {shown}{more}",
            hint="repair or remove these records in the source, then run hybridrag apply again; or have them put aside: "
            f"databases.{context.database}.migration.on_bad_record: quarantine",
        )
    if examination.lost and HazardKind.FIELD_LOSS not in context.allowed:
        shown = ", ".join(
            f"{space}.{name} ({count:,} records)" for (space, name), count in sorted(examination.lost.items())
        )
        raise PlanRefused(
            f'backend "{part.backend.name}" has no place for these fields: {shown}',
            hint="to move everything else and leave them behind: hybridrag apply --allow field_loss",
        )
