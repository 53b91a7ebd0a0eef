"""Verify: read the target back and compare every record, in both directions. Gates the switch."""

from __future__ import annotations

from hybridrag.errors import VerificationFailed
from hybridrag.migrate.catching_up import apart
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare, digest_target

from .base import Context


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
        if facts.get("state") == "verified":
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
        meter = Meter(context.emit, context.step.id, "comparing", part.total)
        facts, _ = await part.target.observe()
        if part.backend.mends and (context.live or facts.get("source_fingerprint") != move.fingerprint):
            held = {name: await digest_target(written, name, context.batch, meter) for name in part.streams}
            meter.tell()
            standing.held = held
            if apart(expected, held) or await part.target.related():
                # Also back: a mark of an earlier run does not vouch for what was found now.
                await part.target.mark(move.migration_id, "copied")
            else:
                await part.target.mark(move.migration_id, "verified", standing.fingerprint)
            return
        source = standing.left_out.of(standing.reader(part.source))
        report = await compare(source, part.target, written, dict(expected), context.batch, meter)
        if not report.equal:
            raise failed(move.database, report)
        standing.held = expected
        await part.target.mark(move.migration_id, "verified")


def failed(database: str, report: Report) -> VerificationFailed:
    """The error that lists what differs, by key and field."""
    least = "at least " if report.truncated else ""
    lines = [str(difference) for difference in report.listed[:10]] + report.broken_rules
    return VerificationFailed(
        f'database "{database}": source and target differ: {least}{report.missing:,} missing, {report.extra:,} extra, '
        f"{report.different:,} different; nothing was switched\n    " + "\n    ".join(lines),
        hint="look at these records in both backends; if the source changed, run hybridrag apply again",
    )
