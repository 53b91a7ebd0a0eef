"""Point back: the registry names the kept backends again; what was written since stays behind where it is."""

from __future__ import annotations

from hybridrag.errors import BackendUnavailable, NotFound, PlanRefused
from hybridrag.model.events import Warned

from .base import Context


class PointBack:
    verb = "point_back"

    async def check(self, context: Context, *, ran: bool) -> str | None:
        if not context.pointer.agrees(context.database, context.path, context.placement, context.workspace):
            return None
        names = dict.fromkeys(f'"{backend.name}"' for backend in context.placement.values())
        return f'backend {" and ".join(names)} serves "{context.database}" as it was left'

    async def do(self, context: Context) -> None:
        left = {}
        records: dict[str, int] = {}
        for part in context.parts:
            if await part.target.reader().fingerprint() != part.move.fingerprint:
                raise PlanRefused(
                    f'backend "{part.target.backend}" was written after it was looked at; nothing was changed',
                    hint="stop whatever writes it, then run the command again",
                )
            facts, _ = await part.target.observe()
            counts = {name: facts.get(f"records/{name}") for name in part.streams}
            records |= {name: count for name, count in counts.items() if isinstance(count, int)}
            reader = part.source.reader()
            try:
                unfinished = await reader.unfinished()
                left[frozenset(part.move.slots)] = await reader.fingerprint()
            except (BackendUnavailable, NotFound):
                continue  # it is down or gone, which may be why it is left; in which state, nobody knows then
            if unfinished:
                raise PlanRefused(
                    f'somebody is writing database "{context.database}" now: {", ".join(unfinished)}',
                    hint="stop the LightRAG process that writes it, then run the command again",
                )
        untold = await context.pointer.point(
            context.database, context.path, context.placement, context.workspace, left=left, behind=True
        )
        context.memory.put_served(context.database, records)
        for words in untold:
            context.emit(Warned(step=context.step.id, message=words))
