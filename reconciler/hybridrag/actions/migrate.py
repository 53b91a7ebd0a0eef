"""Migrate: copy every stream from the last checkpoint on, then build what bulk load left out."""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.migrate.copying import copy
from hybridrag.migrate.progress import Meter
from hybridrag.model.events import Warned
from hybridrag.model.plan import HazardKind

from .bad_records import left_out_of
from .base import Context
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
        _consent(context)
        await stopped_before_full(context, self._copy(context))

    async def _copy(self, context: Context) -> None:
        part = context.part
        move, left_out = part.move, left_out_of(context)
        reader, total = left_out.of(part.source.reader()), part.total - left_out.total
        fingerprint = await reader.fingerprint()
        if fingerprint != move.fingerprint:
            raise changed(move.database)
        async with part.target.open_writer(move.migration_id, fingerprint, replaces=move.replaces) as writer:
            done = await writer.prepare()
            if before := sum(count - left_out.before(name, count) for name, count in done.items()):
                message = f"resuming: {before:,} of {total:,} records were committed before"
                context.emit(Warned(step=context.step.id, message=message))
            meter = Meter(context.emit, context.step.id, "copying", total, start=before)
            await copy(reader, writer, part.streams, done, context.batch, meter)
            if await reader.fingerprint() != fingerprint:
                raise changed(move.database)
            await writer.finish(lambda phase: Meter(context.emit, context.step.id, phase, 0).tell())


def _consent(context: Context) -> None:
    for hazard in context.step.hazards:
        if hazard.kind is HazardKind.REPLACE_KEPT and hazard.kind not in context.allowed:
            raise PlanRefused(
                f'database "{context.database}": {hazard.detail}',
                hint=f"if that is meant: hybridrag apply --allow {hazard.kind.value}",
            )


def changed(database: str) -> PlanRefused:
    """The source is not the one that was planned for."""
    return PlanRefused(
        f'database "{database}" was written after it was planned; nothing was switched',
        hint="stop whatever writes it, then run hybridrag apply again (it starts from the new state)",
    )
