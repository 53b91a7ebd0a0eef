"""Pause: from here to the switch nobody may write the source.

Whatever writes it is stopped, where the spec says how. Otherwise the source is fenced by its fingerprint, and a
change before the switch stops the run with the old backend still serving.
"""

from __future__ import annotations

from hybridrag.failpoints import Point, failpoint

from .base import Context
from .migrate import changed, refuse_unfinished


class Pause:
    verb = "pause"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        held = context.memory.pause_of(context.database)
        if not held or held[0] != context.run:
            return None
        if context.halter is None:
            return "no writer declared; the source is watched"
        return context.standings.stopped.get(context.database, "the writer is stopped")

    async def do(self, context: Context) -> None:
        # Noted first: after a kill between the two, somebody must start the writer again.
        context.memory.open_pause(context.database, context.run, None)
        if context.halter is not None:
            context.standings.stopped[context.database] = await context.halter.pause()
        failpoint(Point.PAUSED)
        for part in context.parts:
            if not part.move.migration_id:
                continue  # nothing is carried over from there, and it may be down: point_back looks for itself
            await refuse_unfinished(context, part)
            if context.halter is None and await part.source.reader().fingerprint() != part.move.fingerprint:
                raise changed(context.database)
