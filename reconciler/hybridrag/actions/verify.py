"""Verify: read the target back and compare every record, in both directions. Gates the switch."""

from __future__ import annotations

from hybridrag.errors import VerificationFailed
from hybridrag.failpoints import Point, failpoint
from hybridrag.migrate.catching_up import apart
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare, digest_targets
from hybridrag.model.marks import MarkState

from .base import Context
from .marking import mark
from .proving import ReadBefore, Told


class Verify:
    verb = "verify"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        if not ran:
            return None  # an earlier verification does not vouch for what happened since
        part = context.part
        facts, _ = await part.target.observe()
        if facts.get("migration") != part.move.migration_id:
            return None
        standing = await context.standing()
        if facts.get("state") == MarkState.VERIFIED:
            left_out = standing.left_out.total
            told = f", {left_out:,} in quarantine" if left_out else ""
            return f"{standing.records:,} records equal, 0 missing, 0 extra, 0 different{told}"
        if standing.held is not None:
            return "a copy of an earlier state; what was written since is carried over"
        return None

    async def do(self, context: Context) -> None:
        part, standing = context.part, await context.standing()
        move, expected = part.move, standing.wanted
        if expected is None:
            # Comparing with less than everything would call a half copy equal.
            raise VerificationFailed(
                f'database "{move.database}": the source was not examined in full; nothing was switched',
                hint="hybridrag apply examines it again",
            )
        written = part.target.written(move.migration_id)
        meter = Meter(context.emit, context.step.id, "comparing", part.total, totals=part.records)
        facts, _ = await part.target.observe()
        if facts.get("state") == MarkState.SWITCHED:
            # A kill fell between this mark and the pointer: by the plan it never served, and is the finished copy again.
            await part.target.withdraw(move.migration_id)
        before = await ReadBefore.of(context, written)
        if part.backend.mends and (context.live or facts.get("source_fingerprint") != move.fingerprint):
            held = await digest_targets(written, part.streams, context.batch, meter, context.lanes, before)
            meter.tell()
            standing.held = held
            equal = not apart(expected, held) and not await part.target.related()
            before.drop()
            if equal:
                await mark(context, part, MarkState.VERIFIED, standing.fingerprint)
            else:
                # Also back: a mark of an earlier run does not vouch for what was found now.
                await mark(context, part, MarkState.COPIED)
            return
        source = standing.left_out.of(standing.reader(part.source))
        told = Told(written)
        report = await compare(
            source,
            part.target,
            told.reader,
            dict(expected),
            context.batch,
            meter,
            before,
            lanes=context.lanes,
        )
        before.drop()
        if not report.equal:
            raise failed(move.database, report)
        told.tell(context, before, quarantined=standing.left_out.total > 0)
        standing.held = expected
        await mark(context, part, MarkState.VERIFIED)
        failpoint(Point.VERIFIED)


def failed(database: str, report: Report) -> VerificationFailed:
    """The error that lists what differs, by key and field."""
    least = "at least " if report.truncated else ""
    lines = [*map(str, report.listed[:10]), *report.broken_rules, *report.wrong]
    counts = f"{least}{report.missing:,} missing, {report.extra:,} extra, {report.different:,} different"
    return VerificationFailed(
        f'database "{database}": source and target differ: {counts}; nothing was switched\n    '
        + "\n    ".join(lines),
        hint="look at these records in both backends; if the source changed, run hybridrag apply again",
    )
