"""Migrate: copy every stream from the last checkpoint on, then build what bulk load left out."""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.migrate.copying import copy
from hybridrag.migrate.progress import Meter
from hybridrag.model.events import Warned

from .base import STREAMS, Context
from .room import stopped_before_full

DONE = ("copied", "verified", "switched")


class Migrate:
    verb = "migrate"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        move, _, target = context.moving()
        facts, _ = await target.observe()
        if facts.get("migration") == move.migration_id and facts.get("state") in DONE:
            return f'{context.total:,} records in backend "{target.backend}"'
        return None

    async def do(self, context: Context) -> None:
        await stopped_before_full(context, self._copy(context))

    async def _copy(self, context: Context) -> None:
        move, source, target = context.moving()
        reader = source.reader()
        fingerprint = reader.fingerprint()
        if fingerprint != move.fingerprint:
            raise changed(move.database)
        async with target.open_writer(move.migration_id, fingerprint) as writer:
            done = await writer.prepare()
            if before := sum(done.values()):
                message = f"resuming: {before:,} of {context.total:,} records were committed before"
                context.emit(Warned(step=context.step.id, message=message))
            meter = Meter(context.emit, context.step.id, "copying", context.total, start=before)
            await copy(reader, writer, STREAMS, done, context.batch, meter)
            if reader.fingerprint() != fingerprint:
                raise changed(move.database)
            await writer.finish(lambda phase: Meter(context.emit, context.step.id, phase, 0).tell())


def changed(database: str) -> PlanRefused:
    """The source is not the one that was planned for."""
    return PlanRefused(
        f'database "{database}" was written after it was planned; nothing was switched',
        hint="stop whatever writes it, then run hybridrag apply again (it starts from the new state)",
    )
