"""Pause: from here to the switch nobody may write the source.

With writer kind `none` there is nobody to stop; the source is fenced by its fingerprint, and a change
before the switch stops the run with the old backend still serving.
"""

from __future__ import annotations

from hybridrag.errors import PlanRefused

from .base import Context


class Pause:
    verb = "pause"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        move, _, _ = context.moving()
        held = context.memory.pause_of(move.database)
        return "no writer declared; the source is watched" if held and held[0] == context.run else None

    async def do(self, context: Context) -> None:
        move, source, _ = context.moving()
        reader = source.reader()
        if unfinished := await reader.unfinished():
            raise PlanRefused(
                f'somebody is writing database "{move.database}" now: {", ".join(unfinished)} in "{context.path}"',
                hint="stop the LightRAG process that writes it (or remove leftovers of a dead one), then run hybridrag apply",
            )
        context.memory.open_pause(move.database, context.run, await reader.fingerprint())
