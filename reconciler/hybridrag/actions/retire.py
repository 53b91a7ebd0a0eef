"""Retire: delete a kept copy that serves nothing any more. The only action that deletes data of a finished database."""

from __future__ import annotations

from hybridrag.errors import PlanRefused

from .base import Context, serving_name


class Retire:
    verb = "retire"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        move = context.part.move
        slots = "+".join(slot.value for slot in move.slots)
        if f"kept_state/{move.source}/{slots}" in context.pointer.current(context.database):
            return None
        return f'nothing of "{context.database}" is kept in backend "{context.part.source.backend}"'

    async def do(self, context: Context) -> None:
        part, store = context.part, context.part.source
        move = part.move
        entry = context.pointer.current(context.database)
        if any(serving_name(entry, slot) == move.source for slot in move.slots):
            raise PlanRefused(
                f'backend "{store.backend}" serves database "{context.database}"; nothing was deleted',
                hint="hybridrag status shows what serves it",
            )
        facts, _ = await store.observe()
        if facts.get("fingerprint") != (move.fingerprint or None):
            raise PlanRefused(
                f'what is kept in backend "{store.backend}" was written after it was looked at; nothing was deleted',
                hint="stop whatever writes it, then run the command again",
            )
        # First, because a kill may leave half of it: from now on it is no way back.
        await context.pointer.retiring(context.database, move.source, move.slots)
        await store.destroy_kept(move.migration_id or None)
        await context.pointer.let_go(context.database, move.source, move.slots)
