"""Migrate: copy every stream from the last checkpoint on, then build what bulk load left out."""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.migrate.copying import copy
from hybridrag.migrate.progress import Meter
from hybridrag.model.events import Warned
from hybridrag.model.plan import HazardKind

from .base import Context, Part
from .room import stopped_before_full

DONE = ("copied", "verified", "switched")


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
        _consent(context)
        await stopped_before_full(context, self._copy(context))

    async def _copy(self, context: Context) -> None:
        part, standing = context.part, await context.standing()
        move, reader, left_out = part.move, standing.reader(part.source), standing.left_out
        if standing.moment is None and await reader.fingerprint() != move.fingerprint:
            raise changed(move.database)
        target = part.target.open_writer(move.migration_id, standing.fingerprint, replaces=move.replaces)
        async with target as writer:
            done = await writer.prepare()
            if done and standing.fingerprint != move.fingerprint:
                raise changed(move.database)  # what is there was copied from another state
            total = standing.records
            if before := sum(count - left_out.before(name, count) for name, count in done.items()):
                message = f"resuming: {before:,} of {total:,} records were committed before"
                context.emit(Warned(step=context.step.id, message=message))
            meter = Meter(context.emit, context.step.id, "copying", total, start=before)
            await copy(left_out.of(reader), writer, part.streams, done, context.batch, meter)
            if standing.moment is not None:
                await standing.moment.kept()
            elif await reader.fingerprint() != standing.fingerprint:
                raise changed(move.database)
            await writer.finish(lambda phase: Meter(context.emit, context.step.id, phase, 0).tell())


def _consent(context: Context) -> None:
    for hazard in context.step.hazards:
        if hazard.kind is HazardKind.REPLACE_KEPT and hazard.kind not in context.allowed:
            raise PlanRefused(
                f'database "{context.database}": {hazard.detail}',
                hint=f"if that is meant: hybridrag apply --allow {hazard.kind.value}",
            )


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
