"""Resume: let the writer go on, on the backend that serves now. Also the bracket's end after a failure."""

from __future__ import annotations

import time

from hybridrag.failpoints import Point, failpoint
from hybridrag.model.events import Warned

from .base import Context


class Resume:
    verb = "resume"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        if context.memory.paused_since(context.database) is not None:
            return None
        seconds = context.standings.paused.get(context.database)
        return "no pause is held" if seconds is None else f"the writer was paused {seconds:.1f} s"

    async def do(self, context: Context) -> None:
        failpoint(Point.RESUME_BEFORE)
        since = context.memory.paused_since(context.database)
        if context.halter is not None and since is not None:
            words = await context.halter.resume(context.serving())
            context.standings.paused[context.database] = max(0.0, time.time() - since)
            if words is not None:
                context.emit(Warned(step=context.step.id, message=words))
        if context.pointer.agrees(context.database, context.path, context.placement, context.workspace):
            # A kill right behind the pointer left the note that these copies never served.
            context.memory.end_switch(context.database)
        context.memory.close_pause(context.database)
        failpoint(Point.RESUMED)
        for part in context.parts:
            await context.standings.release(part.move.id)
            context.memory.drop_digests(part.move.migration_id)
