"""Switch: point the registry at the new backend. The only step after which another backend serves."""

from __future__ import annotations

from .base import Context
from .migrate import changed


class Switch:
    verb = "switch"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        if context.pointer.agrees(context.database, context.path, context.backend, context.workspace):
            return f'backend "{context.backend.name}" serves "{context.database}"'
        return None

    async def do(self, context: Context) -> None:
        move, source = context.move, context.source
        if move is not None and source is not None and context.target is not None:
            if await source.reader().fingerprint() != move.fingerprint:
                raise changed(move.database)
            # The mark goes first: a target that serves must never look like an unfinished copy of ours.
            await context.target.mark(move.migration_id, "switched")
        context.pointer.point(context.database, context.path, context.backend, context.workspace)
