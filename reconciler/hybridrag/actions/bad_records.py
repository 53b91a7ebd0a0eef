"""What becomes of records that a target cannot hold: put aside where the spec says so, told, and left out everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.data import BadRecord
from hybridrag.model.events import Quarantined

from .base import Context


def left_out_of(context: Context) -> LeftOut:
    """The records that stay behind, as the source was when it was planned for."""
    return LeftOut.from_bytes(context.memory.left_out(context.part.move.examined_id))


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
