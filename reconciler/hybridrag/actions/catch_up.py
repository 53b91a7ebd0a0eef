"""Catch up: what was written to the source since it was copied goes to the target as well, and is proved there.

Where nothing was written, which is told by the source's fingerprint, there is nothing to do.
"""

from __future__ import annotations

from hybridrag.errors import PlanRefused, VerificationFailed
from hybridrag.migrate.catching_up import apart, catch_up
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.model.events import Warned

from .bad_records import accept, keeping, left_out_of, quarantined
from .base import Context, held_id
from .migrate import changed


class CatchUp:
    verb = "catch_up"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        part = context.part
        facts, _ = await part.target.observe()
        if facts.get("migration") != part.move.migration_id or facts.get("state") != "verified":
            return None
        if facts.get("source_fingerprint") != await part.source.reader().fingerprint():
            return None
        return "all of it is there" if ran else "nothing was written meanwhile"

    async def do(self, context: Context) -> None:
        part = context.part
        move, mending = part.move, part.target.mending()
        if mending is None:
            raise changed(move.database)
        held = _tables(context, held_id(move.migration_id))
        reader = part.source.reader()
        fingerprint = await reader.fingerprint()
        if fingerprint == move.fingerprint:
            wanted, left_out = _tables(context, move.examined_id), left_out_of(context)
        else:
            meter = Meter(context.emit, context.step.id, "reading the source", part.total)
            with keeping(context) as keep:
                wanted, found = await examine_source(
                    reader, part.target, part.streams, context.batch, meter, keep, lanes=context.lanes
                )
                accept(context, part, found)
            left_out = LeftOut(found.left_out)
            quarantined(context, left_out)
        meter = Meter(context.emit, context.step.id, "catching up", 0)
        # From here on the tables in the journal do not tell what the target holds.
        context.memory.drop_digests(held_id(move.migration_id))
        async with mending.open(move.migration_id) as patcher:
            delta = await catch_up(
                left_out.of(reader), part.target, mending, patcher, wanted, held, context.batch, meter
            )
        if await reader.fingerprint() != fingerprint:
            raise changed(move.database)
        if differing := apart(wanted, held):
            raise VerificationFailed(
                f'database "{move.database}": source and target differ in {", ".join(differing)} after catching up; '
                "nothing was switched",
                hint="run hybridrag apply again; it compares record by record",
            )
        if broken := await part.target.related():
            raise VerificationFailed(f'database "{move.database}": {"; ".join(broken)}; nothing was switched')
        context.emit(Warned(step=context.step.id, message=f"written since the copy: {delta}"))
        await part.target.mark(move.migration_id, "verified", fingerprint)


def _tables(context: Context, name: str) -> dict[str, NamespaceDigest]:
    known = context.memory.digests(name)
    if set(known) != set(context.part.streams):
        raise PlanRefused(
            f'database "{context.database}": the journal does not hold what was read before; nothing was switched',
            hint="hybridrag apply reads it again",
        )
    return {stream: NamespaceDigest.from_bytes(known[stream]) for stream in context.part.streams}
