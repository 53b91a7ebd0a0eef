"""Follow: what was written during the copy goes to the target while the writer goes on, so that the pause has little to carry."""

from __future__ import annotations

import time

from hybridrag.migrate.catching_up import Delta

from .base import Context
from .carrying import carry_over

ROUNDS = 3
SMALL = 2_000
"""So few records, or so short a round, are left to the pause."""
SHORT_S = 2.0


class Follow:
    verb = "follow"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        if not ran:
            return None  # the writer goes on
        standing = await context.standing()
        return f"{standing.records:,} records, up to a moment ago" if standing.settled else None

    async def do(self, context: Context) -> None:
        part = context.part
        for _ in range(ROUNDS):
            started = time.monotonic()
            delta = await self._round(context)
            standing = await context.standing()
            if standing.moment is not None:
                # Also what the pause would have to look up of this moment is looked up now.
                await standing.moment.prepare()
            if delta is None or (delta.records <= SMALL and time.monotonic() - started <= SHORT_S):
                break
            if await part.source.reader().fingerprint() == standing.fingerprint:
                break

    async def _round(self, context: Context) -> Delta | None:
        """One more moment; None where it is the same as the last one."""
        part, before = context.part, await context.standing()
        if not before.settled:
            return await carry_over(context, before, before)
        async with context.standings.later(part.move, part.source) as after:
            if after.fingerprint == before.fingerprint:
                after.wanted, after.held, after.left_out = before.wanted, before.held, before.left_out
                return None
            return await carry_over(context, before, after)
