"""Pause: from here to the switch nobody may write the source.

With writer kind `none` there is nobody to stop; the source is fenced by its fingerprint, and a change
before the switch stops the run with the old backend still serving.
"""

from __future__ import annotations

from hybridrag.errors import PlanRefused

from .base import Context
from .migrate import changed


class Pause:
    verb = "pause"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        held = context.memory.pause_of(context.database)
        return "no writer declared; the source is watched" if held and held[0] == context.run else None

    async def do(self, context: Context) -> None:
        fingerprints = []
        for part in context.parts:
            reader = part.source.reader()
            if unfinished := await reader.unfinished():
                raise PlanRefused(
                    f'somebody is writing database "{context.database}" now: {", ".join(unfinished)} in "{context.path}"',
                    hint="stop the LightRAG process that writes it (or remove leftovers of a dead one), then run "
                    "hybridrag apply",
                )
            fingerprint = await reader.fingerprint()
            if fingerprint != part.move.fingerprint:
                raise changed(context.database)
            fingerprints.append(fingerprint)
        context.memory.open_pause(context.database, context.run, " ".join(fingerprints))
