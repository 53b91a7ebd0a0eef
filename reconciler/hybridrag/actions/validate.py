"""Validate: can the target take this data? Asked before anything is paused or written.

The server's version, extension and rights first, then one pass over the whole source: every record is
formed as the target would hold it, what the target cannot hold is named or put aside, and the digests that
`verify` will ask for are kept.
"""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter

from .bad_records import accept, keeping, quarantined
from .base import Context
from .migrate import refuse_unfinished
from .room import refuse_without_room


class Validate:
    verb = "validate"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        part = context.part
        facts, _ = await part.backend.observe()
        problems = part.backend.problems(facts, context.embedding)
        if problems:
            raise problems[0]
        await refuse_without_room(context)
        standing = await context.standing()
        left_out = standing.left_out
        file = context.memory.quarantine_file(context.database, part.move.migration_id)
        if standing.wanted is None or (left_out.total and not (context.quarantine and file)):
            return None
        return f"{standing.records:,} records fit{quarantined(context, left_out)}"

    async def do(self, context: Context) -> None:
        part, standing = context.part, await context.standing()
        if context.halter is None:
            await refuse_unfinished(context, part)
        meter = Meter(context.emit, context.step.id, "examining", part.total, totals=part.records)
        reader = standing.reader(part.source)
        with keeping(context) as keep:
            tables, examination = await examine_source(
                reader, part.target, part.streams, context.batch, meter, keep, lanes=context.lanes
            )
            accept(context, part, examination, standing.fingerprint)
            if standing.moment is not None:
                await standing.moment.kept()
            elif await reader.fingerprint() != part.move.fingerprint:
                raise PlanRefused(
                    f'database "{context.database}" was written while it was examined',
                    hint="stop whatever writes it, then run hybridrag apply again",
                )
        standing.wanted, standing.left_out = tables, LeftOut(examination.left_out)
        # The digests last: where they are known, nothing else is missing.
        name = standing.examined_id(part.move)
        context.memory.put_left_out(name, standing.left_out.to_bytes())
        context.memory.put_digests(name, {stream: table.to_bytes() for stream, table in tables.items()})
