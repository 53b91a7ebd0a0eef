"""What every action is handed and what it must offer. Actions know verbs and ports, never a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hybridrag.model.data import Slot, streams_of
from hybridrag.model.events import Emit
from hybridrag.model.plan import HazardKind, Move, Step
from hybridrag.model.ports import Backend, Embedding, Memory, Pointer, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One move with its two stores. `backend` is the target's; `records` are the source's, by stream."""

    move: Move
    backend: Backend
    source: Store
    target: Store
    records: Mapping[str, int]

    @property
    def streams(self) -> tuple[str, ...]:
        return streams_of(self.move.slots)

    @property
    def total(self) -> int:
        return sum(self.records.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The world of one step.

    `parts` are what the step is about: one part, or for a step of the whole database all of its moving parts.
    `quarantine`: records that a target cannot hold are put aside. `placement` is where each slot of the database is wanted; `backend` is what a provision step is about.
    """

    run: str
    step: Step
    backend: Backend | None
    parts: tuple[Part, ...]
    database: str
    path: str
    workspace: str
    embedding: Embedding
    batch: int
    quarantine: bool
    placement: Mapping[Slot, Backend]
    memory: Memory
    pointer: Pointer
    allowed: frozenset[HazardKind]
    emit: Emit

    @property
    def part(self) -> Part:
        """The only part of a step that moves data."""
        (part,) = self.parts
        return part


def held_id(migration_id: str) -> str:
    """Under which name the journal keeps what a target was found to hold."""
    return f"{migration_id} held"


class Action(Protocol):
    """One verb. `check` is called before and after `do`; what it returns says that the goal is reached, and how."""

    verb: str

    async def check(self, context: Context, *, ran: bool) -> str | None:
        """Words when there is nothing (more) to do, None otherwise. `ran`: `do` has just returned."""
        ...

    async def do(self, context: Context) -> None: ...
