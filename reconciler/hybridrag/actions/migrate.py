"""Migrate: copy every stream from the last checkpoint on, then build what bulk load left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from hybridrag.errors import PlanRefused
from hybridrag.migrate.copying import copy_ranges, ranges_of
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.model.data import Range
from hybridrag.model.events import Warned
from hybridrag.model.ports import Reader

from .bad_records import accept, left_out_of
from .base import Context, Part
from .overwriting import make_way
from .room import stopped_before_full

DONE = ("copied", "verified", "switched")


class Migrate:
    verb = "migrate"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        part = context.part
        facts, _ = await part.target.observe()
        if facts.get("migration") == part.move.migration_id and facts.get("state") in DONE:
            return f'{part.total - left_out_of(context).total:,} records in backend "{part.target.backend}"'
        return None

    async def do(self, context: Context) -> None:
        await make_way(context)
        await stopped_before_full(context, self._copy(context))

    async def _copy(self, context: Context) -> None:
        part = context.part
        move, left_out = part.move, left_out_of(context)
        total, source = part.total - left_out.total, part.source.reader()
        fingerprint = await source.fingerprint()
        if not live(context) and fingerprint != move.fingerprint:
            raise changed(move.database)
        async with part.target.open_writer(move.migration_id, fingerprint, replaces=move.replaces) as writer:
            done = await writer.prepare()
            ranges = await ranges_of(writer, part.streams, done, part.records, context.batch, context.lanes)
            starts = _copied(ranges, left_out)
            if before := sum(starts.values()):
                message = f"resuming: {before:,} of {total:,} records were committed before"
                context.emit(Warned(step=context.step.id, message=message))
            totals = {name: count - left_out.streams.get(name, 0) for name, count in part.records.items()}
            meter = Meter(
                context.emit, context.step.id, "copying", total, start=before, totals=totals, starts=starts
            )
            async with at_one_moment(context) as reader:
                if await reader.fingerprint() != move.fingerprint:
                    if done or not live(context):
                        raise changed(move.database)
                    # What stays behind was decided for another state: decide again.
                    _, found = await examine_source(
                        reader, part.target, part.streams, context.batch, meter, lanes=context.lanes
                    )
                    accept(context, part, found)
                    left_out = LeftOut(found.left_out)
                await copy_ranges(
                    left_out.of(reader), writer, ranges, context.batch, meter, lanes=context.lanes
                )
                if not live(context) and await reader.fingerprint() != fingerprint:
                    raise changed(move.database)
            await writer.finish(lambda phase: Meter(context.emit, context.step.id, phase, 0).tell())


def _copied(ranges: Iterable[Range], left_out: LeftOut) -> dict[str, int]:
    """Records that were committed before, by stream."""
    found: dict[str, int] = {}
    for part in ranges:
        gone = left_out.before(part.namespace, part.done) - left_out.before(part.namespace, part.first)
        found[part.namespace] = found.get(part.namespace, 0) + part.done - part.first - gone
    return found


def live(context: Context) -> bool:
    """Whether the source may be written during this step: its writer is stopped later, and what it writes caught up with."""
    return context.halter is not None and context.part.backend.mends


def at_one_moment(context: Context) -> contextlib.AbstractAsyncContextManager[Reader]:
    """The source as it is to be read: where somebody may write it, by a snapshot."""
    reader = context.part.source.reader()
    return reader.snapshot() if live(context) else contextlib.nullcontext(reader)


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
