"""Reclaim: a kept copy of this database becomes the copy to bring up to date, so that only what differs is written."""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.model.marks import FINISHED

from .base import Context, serving_name


class Reclaim:
    verb = "reclaim"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        part = context.part
        facts, _ = await part.target.observe()
        ours = facts.get("migration") == part.move.migration_id
        if ours and facts.get("state") in FINISHED:
            return f'the copy kept in backend "{part.target.backend}" is compared and brought up to date'
        return None

    async def do(self, context: Context) -> None:
        part = context.part
        mending = part.target.mending()
        entry = context.pointer.current(context.database)
        if mending is None or any(serving_name(entry, slot) == part.move.target for slot in part.move.slots):
            raise PlanRefused(
                f'backend "{part.target.backend}" serves database "{context.database}"; nothing was changed in it',
                hint="hybridrag plan shows what is there now",
            )
        await mending.reclaim(part.move.migration_id)
