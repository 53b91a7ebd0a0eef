"""Catch up: what was written until the source stood still goes to the target as well, and is proved there.

Where nothing was written, which is told by the source's fingerprint, there is nothing to do.
"""

from __future__ import annotations

from hybridrag.failpoints import Point, failpoint
from hybridrag.model.marks import MarkState

from .base import Context
from .carrying import carry_over
from .standing import Standing


class CatchUp:
    verb = "catch_up"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        part, standing = context.part, await context.standing()
        fingerprint = await part.source.reader().fingerprint()
        if not standing.settled or standing.fingerprint != fingerprint:
            return None
        facts, _ = await part.target.observe()
        if facts.get("migration") != part.move.migration_id or facts.get("state") != MarkState.VERIFIED:
            return None
        if facts.get("source_fingerprint") != fingerprint:
            return None
        counts = {name: table.records for name, table in (standing.wanted or {}).items()}
        if any(facts.get(f"records/{name}") != count for name, count in counts.items()):
            return None
        return "all of it is there" if ran else "nothing was written meanwhile"

    async def do(self, context: Context) -> None:
        part, before = context.part, await context.standing()
        after = Standing(fingerprint=await part.source.reader().fingerprint())
        await carry_over(context, before, after)
        failpoint(Point.CAUGHT_UP)
        context.standings.put(part.move, after)
