"""Verify: read the target back and compare every record, in both directions. Gates the switch."""

from __future__ import annotations

from hybridrag.errors import VerificationFailed
from hybridrag.migrate.catching_up import apart
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare, digest_targets

from .bad_records import left_out_of
from .base import Context, held_id
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
        if facts.get("state") == "verified":
            left_out = left_out_of(context).total
            told = f", {left_out:,} in quarantine" if left_out else ""
            return f"{part.total - left_out:,} records equal, 0 missing, 0 extra, 0 different{told}"
        if set(context.memory.digests(held_id(part.move.migration_id))) == set(part.streams):
            return "a copy of an earlier state; what was written since is carried over after the pause"
        return None

    async def do(self, context: Context) -> None:
        part = context.part
        move = part.move
        known = context.memory.digests(move.examined_id)
        if set(known) != set(part.streams):
            # Comparing with less than everything would call a half copy equal.
            raise VerificationFailed(
                f'database "{move.database}": the source was not examined in full; nothing was switched',
                hint="hybridrag apply examines it again",
            )
        expected = {name: NamespaceDigest.from_bytes(data) for name, data in known.items()}
        written = part.target.written(move.migration_id)
        meter = Meter(context.emit, context.step.id, "comparing", part.total, totals=part.records)
        facts, _ = await part.target.observe()
        live = context.halter is not None
        before = await ReadBefore.of(context, written)
        if part.backend.mends and (live or facts.get("source_fingerprint") != move.fingerprint):
            held = await digest_targets(written, part.streams, context.batch, meter, context.lanes, before)
            meter.tell()
            context.memory.put_digests(
                held_id(move.migration_id), {name: table.to_bytes() for name, table in held.items()}
            )
            equal = not apart(expected, held) and not await part.target.related()
            before.drop()
            # Also back: a mark of an earlier run does not vouch for what was found now.
            await part.target.mark(move.migration_id, "verified" if equal else "copied")
            return
        source = left_out_of(context).of(part.source.reader())
        told = Told(written)
        report = await compare(
            source, part.target, told.reader, expected, context.batch, meter, before, lanes=context.lanes
        )
        before.drop()
        if not report.equal:
            raise failed(move.database, report)
        told.tell(context, before)
        context.memory.put_digests(held_id(move.migration_id), known)
        await part.target.mark(move.migration_id, "verified")


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
