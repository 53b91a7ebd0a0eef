"""Migrate: copy every stream from the last checkpoint on, then build what bulk load left out."""

from __future__ import annotations

from collections.abc import Iterable

from hybridrag.errors import BackendUnavailable, PlanRefused, SourceUnreadable
from hybridrag.failpoints import Point, failpoint
from hybridrag.migrate.copying import copy_ranges, ranges_of
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.model.data import Range
from hybridrag.model.events import Warned
from hybridrag.model.marks import FINISHED, MarkState

from .base import Context, Part
from .marking import tell_committed
from .one_place import refuse_one_place
from .overwriting import make_way
from .room import stopped_before_full

DONE = FINISHED | {MarkState.SWITCHED}


class Migrate:
    verb = "migrate"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        part = context.part
        facts, _ = await part.target.observe()
        if facts.get("migration") == part.move.migration_id and facts.get("state") in DONE:
            standing = await context.standing()
            return f'{standing.records:,} records in backend "{part.target.backend}"'
        return None

    async def do(self, context: Context) -> None:
        await refuse_one_place(context.part)
        await make_way(context)
        try:
            await stopped_before_full(context, self._copy(context))
        except SourceUnreadable:
            raise
        except BackendUnavailable:
            await tell_committed(context, context.part)
            raise

    async def _copy(self, context: Context) -> None:
        part, standing = context.part, await context.standing()
        move, reader, left_out = part.move, standing.reader(part.source), standing.left_out
        if standing.moment is None and await reader.fingerprint() != move.fingerprint:
            raise changed(move.database)
        target = part.target.open_writer(move.migration_id, standing.fingerprint, replaces=move.replaces)
        async with target as writer:
            done = await writer.prepare()
            ranges = await ranges_of(writer, part.streams, done, part.records, context.batch, context.lanes)
            starts = _copied(ranges, left_out)
            total = standing.records
            if before := sum(starts.values()):
                message = f"resuming: {before:,} of {total:,} records were committed before"
                context.emit(Warned(step=context.step.id, message=message))
            totals = {name: table.records for name, table in (standing.wanted or {}).items()}
            meter = Meter(
                context.emit, context.step.id, "copying", total, start=before, totals=totals, starts=starts
            )
            if done and standing.fingerprint != move.fingerprint:
                raise changed(move.database)  # what is there was copied from another state
            await copy_ranges(left_out.of(reader), writer, ranges, context.batch, meter, lanes=context.lanes)
            if standing.moment is not None:
                await standing.moment.kept()
            elif await reader.fingerprint() != standing.fingerprint:
                raise changed(move.database)
            await writer.finish(lambda phase: Meter(context.emit, context.step.id, phase, 0).tell())
        failpoint(Point.COPIED)


def _copied(ranges: Iterable[Range], left_out: LeftOut) -> dict[str, int]:
    """Records that were committed before, by stream."""
    found: dict[str, int] = {}
    for part in ranges:
        gone = left_out.before(part.namespace, part.done) - left_out.before(part.namespace, part.first)
        found[part.namespace] = found.get(part.namespace, 0) + part.done - part.first - gone
    return found


async def refuse_unfinished(context: Context, part: Part) -> None:
    """Raises PlanRefused when a write to the source is going on, or was cut off."""
    if unfinished := await part.source.reader().unfinished():
        raise PlanRefused(
            f'somebody is writing database "{context.database}" now: {", ".join(unfinished)} in "{context.path}"',
            hint="stop the LightRAG process that writes it (or remove leftovers of a dead one), then run hybridrag apply",
        )


def changed(database: str) -> PlanRefused:
    """The source is not the one that was planned for."""
    return PlanRefused(
        f'database "{database}" was written after it was planned; nothing was switched',
        hint="stop whatever writes it, then run hybridrag apply again",
    )
