"""Resume: let the writer go on, on the backend that serves now. Also the bracket's end after a failure."""

from __future__ import annotations

from hybridrag.model.events import Warned

from .base import Context, held_id


class Resume:
    verb = "resume"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        return "no pause is held" if context.memory.pause_of(context.database) is None else None

    async def do(self, context: Context) -> None:
        if context.halter is not None and context.memory.pause_of(context.database) is not None:
            warning = await context.halter.resume(context.serving())
            if warning is not None:
                context.emit(Warned(step=context.step.id, message=warning))
        context.memory.close_pause(context.database)
        for part in context.parts:
            context.memory.drop_digests(part.move.examined_id)
            context.memory.drop_digests(held_id(part.move.migration_id))
