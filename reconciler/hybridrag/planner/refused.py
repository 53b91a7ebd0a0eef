"""What an earlier run found in a source that its target cannot take: said by the plan while that source stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hybridrag.actions.bad_records import cannot_hold, no_place
from hybridrag.model.findings import Refusal
from hybridrag.model.plan import Hazard, HazardKind, Move
from hybridrag.model.wanted import Wanted


@dataclass(frozen=True, slots=True)
class FoundOf:
    """One database's: `refusals` by part; `served`: records of each stream when it began to serve."""

    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    served: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What earlier runs found out, by database."""

    refusals: Mapping[str, Mapping[str, Refusal]] = field(default_factory=dict)
    served: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, database: str) -> FoundOf:
        return FoundOf(self.refusals.get(database, {}), self.served.get(database, {}))


def remembered(item: Wanted, move: Move, refusal: Refusal | None) -> tuple[Hazard, ...]:
    """The hazards of it. Raises SourceRefused for records that `apply` would refuse again.

    A refusal of another state of the source, or by another target, says nothing.
    """
    if refusal is None or (refusal.state, refusal.backend) != (move.fingerprint, move.target):
        return ()
    if refusal.refused_total and not item.quarantine:
        raise cannot_hold(item.database, refusal)
    if refusal.lost:
        return (Hazard(kind=HazardKind.FIELD_LOSS, detail=no_place(refusal)),)
    return ()
