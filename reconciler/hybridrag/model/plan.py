"""The plan: hazards, steps and their order. The planner makes it, the engine runs it, render shows it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from .data import Slot


class HazardKind(str, enum.Enum):
    """What a step may cost. Kinds in `NEEDS_CONSENT` run only when allowed by name."""

    DATA_COPY = "data_copy"
    WRITER_PAUSE = "writer_pause"
    SHARED_INDEX = "shared_index"
    FIELD_LOSS = "field_loss"
    RESTART = "restart"
    OTHER_DATA = "other_data"
    REPLACE_KEPT = "replace_kept"
    OVERWRITE = "overwrite"
    INCOMPLETE_SOURCE = "incomplete_source"
    INTERFERENCE = "interference"


NEEDS_CONSENT = frozenset(
    {
        HazardKind.FIELD_LOSS,
        HazardKind.OTHER_DATA,
        HazardKind.REPLACE_KEPT,
        HazardKind.OVERWRITE,
        HazardKind.INCOMPLETE_SOURCE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazard:
    """One danger of one step, in words."""

    kind: HazardKind
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One ordered, idempotent action.

    `reason` names the difference that caused it. `records` and `bytes` count source data; `estimate_s` is in
    seconds, `disk_bytes` what the target's volume is expected to lose; None where nothing can be said.
    """

    id: str
    verb: str
    target: str
    summary: str
    reason: str
    depends_on: tuple[str, ...] = ()
    records: int | None = None
    bytes: int | None = None
    estimate_s: float | None = None
    disk_bytes: int | None = None
    hazards: tuple[Hazard, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Some slots of one database going from the backend in use to the desired one.

    `id` is the database's name, or tells the parts of one apart. `replaces` names the migration whose kept copy
    in the target gives way to this one. `overwrites` names what was seen in the target that is nobody's we know, and gives
    way as well.
    """

    id: str
    database: str
    slots: tuple[Slot, ...]
    source: str
    target: str
    workspace: str
    fingerprint: str
    migration_id: str
    replaces: str | None = None
    overwrites: str | None = None


KEPT = "kept"
"""`Move.replaces` of a kept copy that bears no single migration's mark: none at all, or those of several, slot by slot."""


def owner_of(migration_id: str) -> str:
    """The part of a migration's name that says whose it is: the database and its folder, whatever their state."""
    return migration_id.partition("-")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be done, and the world it was made for."""

    environment: str
    spec_digest: str
    observation_digest: str
    steps: tuple[Step, ...] = ()
    moves: Mapping[str, Move] = field(default_factory=dict)
    """By their ids."""
    in_place: tuple[str, ...] = ()
    """Databases that already are where the spec wants them."""
    warnings: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.steps

    def moves_of(self, database: str) -> tuple[Move, ...]:
        """The parts of one database that move."""
        return tuple(move for move in self.moves.values() if move.database == database)

    @property
    def hazards(self) -> tuple[Hazard, ...]:
        return tuple(hazard for step in self.steps for hazard in step.hazards)
