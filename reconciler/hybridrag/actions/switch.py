"""Switch: point the registry at the new backend. The only step after which another backend serves."""

from __future__ import annotations

import contextlib

from hybridrag.failpoints import Point, failpoint
from hybridrag.model.data import Slot
from hybridrag.model.events import Warned
from hybridrag.model.marks import MarkState

from .base import Context, Part
from .marking import mark
from .migrate import changed


class Switch:
    verb = "switch"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        if not context.pointer.agrees(context.database, context.path, context.placement, context.workspace):
            return None
        names = dict.fromkeys(f'"{backend.name}"' for backend in context.placement.values())
        return f'backend {" and ".join(names)} serves "{context.database}"'

    async def do(self, context: Context) -> None:
        left: dict[frozenset[Slot], str] = {}
        records: dict[str, int] = {}
        for part in context.parts:
            records |= await _records(context, part)
            facts, _ = await part.target.observe()
            state = facts.get("source_fingerprint") if part.backend.mends else part.move.fingerprint
            fingerprint = left[frozenset(part.move.slots)] = await part.source.reader().fingerprint()
            if fingerprint != state:
                raise changed(context.database)
        for part in context.parts:
            # Let go before the pointer moves: a run killed behind it leaves nothing of its own beside the source.
            await context.standings.release(part.move.id)
        # Nobody may begin to write between the last look at the pause and the new pointer.
        with context.halter.sealed() if context.halter else contextlib.nullcontext():
            # Should a kill fall between the marks and the pointer, the next run must know that these never served.
            context.memory.begin_switch(context.database, [part.move.migration_id for part in context.parts])
            for part in context.parts:
                # The marks go first: a target that serves must never look like an unfinished copy of ours.
                await mark(context, part, MarkState.SWITCHED)
            failpoint(Point.SWITCH_MARKED)
            untold = await context.pointer.point(
                context.database, context.path, context.placement, context.workspace, left=left
            )
            for words in untold:
                context.emit(Warned(step=context.step.id, message=words))
            context.memory.end_switch(context.database)
        context.memory.put_served(context.database, records)


async def _records(context: Context, part: Part) -> dict[str, int]:
    """Records of each stream of the copy; none where this run did not compare it."""
    standing = await context.standings.of(part.move, part.source, live=False)
    return {name: table.records for name, table in (standing.wanted or {}).items()}
