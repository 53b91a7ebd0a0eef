"""Carry what was written to a source since its copy over to the target, and prove it there; while the writer goes on or stands."""

from __future__ import annotations

from hybridrag.errors import PlanRefused, VerificationFailed
from hybridrag.migrate.catching_up import Delta, apart, catch_up
from hybridrag.migrate.changing import NeedsWholePass, carry, look_at
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.progress import Meter
from hybridrag.model.events import Warned
from hybridrag.model.marks import MarkState
from hybridrag.model.plan import HazardKind
from hybridrag.model.ports import Changes, Mending, Reader

from .bad_records import accept, keeping, quarantined
from .base import Context
from .marking import mark
from .migrate import changed
from .standing import Standing

PHASE = "catching up"


async def carry_over(context: Context, before: Standing, after: Standing) -> Delta:
    """Bring the target from one state of the source to a later one. `after` is given what the target must hold, and holds.

    Where the moment of `before` tells what differs, only that is read. Raises what stands in the way; nothing is
    switched, and the target's mark says that it is unverified.
    """
    part = context.part
    reader, mending = after.reader(part.source), part.target.mending()
    if mending is None:
        raise changed(context.database)
    delta = None
    if before.settled and before.moment is not None:
        async with before.moment.until(reader) as changes:
            if changes is not None:
                delta = await _differing(context, before, after, mending, changes)
    if delta is None:
        delta = await _whole_pass(context, before, after, mending, reader)
    if after.moment is not None:
        await after.moment.kept()
    elif await reader.fingerprint() != after.fingerprint:
        raise changed(context.database)
    if broken := await part.target.related():
        raise VerificationFailed(f'database "{context.database}": {"; ".join(broken)}; nothing was switched')
    context.emit(Warned(step=context.step.id, message=f"written since the copy: {delta}"))
    await mark(context, part, MarkState.VERIFIED, after.fingerprint)
    return delta


async def _differing(
    context: Context, before: Standing, after: Standing, mending: Mending, changes: Changes
) -> Delta | None:
    """Carry over the records that differ alone; None where they cannot be judged by themselves."""
    part, tables = context.part, before.wanted
    assert tables is not None  # noqa: S101 - it is settled
    lossy = HazardKind.FIELD_LOSS in context.allowed
    try:
        found = await look_at(changes, part.target, mending, part.streams, context.batch, lossy=lossy)
    except NeedsWholePass:
        return None
    # Records were left out by their positions; those of a stream that was written may be others now.
    left_out = set(before.left_out.streams)
    if left_out & {"nodes", "edges"}:
        left_out |= {"nodes", "edges"}
    if any(name in left_out and (change.before or change.after) for name, change in found.items()):
        return None
    meter = Meter(context.emit, context.step.id, PHASE, 0)
    async with mending.open(part.move.migration_id) as patcher:
        delta = await carry(found, changes, part.target, mending, patcher, tables, context.batch, meter)
    after.wanted = after.held = tables
    after.left_out = before.left_out
    return delta


async def _whole_pass(
    context: Context, before: Standing, after: Standing, mending: Mending, reader: Reader
) -> Delta:
    part, held = context.part, before.held
    if held is None:
        raise PlanRefused(
            f'database "{context.database}": what the target holds was not read; nothing was switched',
            hint="hybridrag apply reads it",
        )
    if after.fingerprint == before.fingerprint and before.wanted is not None:
        after.wanted, after.left_out = before.wanted, before.left_out
    else:
        meter = Meter(context.emit, context.step.id, "reading the source", part.total)
        with keeping(context) as keep:
            after.wanted, found = await examine_source(
                reader, part.target, part.streams, context.batch, meter, keep, lanes=context.lanes
            )
            accept(context, part, found, after.fingerprint)
        after.left_out = LeftOut(found.left_out)
        quarantined(context, after.left_out)
    meter = Meter(context.emit, context.step.id, PHASE, 0)
    async with mending.open(part.move.migration_id) as patcher:
        delta = await catch_up(
            after.left_out.of(reader), part.target, mending, patcher, after.wanted, held, context.batch, meter
        )
    if differing := apart(after.wanted, held):
        raise VerificationFailed(
            f'database "{context.database}": source and target differ in {", ".join(differing)} after catching up; '
            "nothing was switched",
            hint="run hybridrag apply again; it compares record by record",
        )
    after.held = held
    return delta
