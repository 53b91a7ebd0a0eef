"""The last look before a target is written to: that it is not the source under another name."""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.model.address import shared

from .base import Part


async def refuse_one_place(part: Part) -> None:
    """Raises PlanRefused where source and target are one place; nothing was read, deleted or written then.

    A plan tells most of it. A server without a name of its own gets one only now, when it is to be written to.
    """
    await part.target.identify()
    same = shared(await part.source.addresses(), await part.target.addresses())
    if same:
        names = ", ".join(slot.value for slot in same)
        raise PlanRefused(
            f'database "{part.move.database}": backends "{part.source.backend}" and "{part.target.backend}" are one place '
            f"({names}), reached by two ways; nothing was copied",
            hint=f"leave databases.{part.move.database}.backend at {part.source.backend}, or name another server",
        )
