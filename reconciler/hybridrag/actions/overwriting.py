"""Make way: remove from a target what is not this migration's own, exactly as it was shown, and only with consent."""

from __future__ import annotations

from collections.abc import Collection

from hybridrag.errors import PlanRefused
from hybridrag.model.facts import Facts, digest_of
from hybridrag.model.plan import HazardKind, Plan

from .base import Context

_CONSENT = frozenset({HazardKind.REPLACE_KEPT, HazardKind.OVERWRITE, HazardKind.INCOMPLETE_SOURCE})


def seen_in(facts: Facts) -> str:
    """Names what was observed of a place: it changes with whatever is written there."""
    told = ("migration", "state", "fingerprint", "foreign_vectors", "records/")
    return digest_of({name: value for name, value in facts.items() if name.startswith(told)})[:16]


def refuse_without_consent(plan: Plan, allowed: Collection[HazardKind]) -> None:
    """Raises PlanRefused for a hazard that costs data and was not allowed; before anything is done or read."""
    for step in plan.steps:
        for hazard in step.hazards:
            if hazard.kind in _CONSENT and hazard.kind not in allowed:
                about = plan.moves[step.target].database if step.target in plan.moves else step.target
                other = f", or set databases.{about}.workspace to a free name"
                raise PlanRefused(
                    f'database "{about}": {hazard.detail}',
                    hint=f"if that is meant: hybridrag apply --allow {hazard.kind.value}"
                    + (other if hazard.kind is HazardKind.OVERWRITE else ""),
                )


async def make_way(context: Context) -> None:
    """Raises PlanRefused where something else lies there than was planned for."""
    move = context.part.move
    if move.overwrites is None:
        return
    target = context.part.target
    facts, _ = await target.observe()
    if seen_in(facts) != move.overwrites:
        raise PlanRefused(
            f'database "{move.database}": what lies in backend "{target.backend}" was written after it was looked at; '
            "nothing was overwritten",
            hint="stop whatever writes it, then run the command again",
        )
    mark = facts.get("migration")
    await target.make_way(str(mark) if mark is not None else None)
