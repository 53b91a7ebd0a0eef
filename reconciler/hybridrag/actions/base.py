"""What every action is handed and what it must offer. Actions know verbs and ports, never a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hybridrag.model.data import NAMESPACES
from hybridrag.model.events import Emit
from hybridrag.model.plan import HazardKind, Move, Step
from hybridrag.model.ports import Backend, Embedding, Memory, Pointer, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The world of one step. `source` is None when the step moves no data."""

    run: str
    step: Step
    backend: Backend
    move: Move | None
    database: str
    path: str
    workspace: str
    embedding: Embedding
    batch: int
    source: Store | None
    target: Store | None
    memory: Memory
    pointer: Pointer
    allowed: frozenset[HazardKind]
    records: Mapping[str, int]
    emit: Emit

    def moving(self) -> tuple[Move, Store, Store]:
        """(move, source, target) of a step that moves data."""
        if self.move is None or self.source is None or self.target is None:
            raise RuntimeError(f"step {self.step.id} moves no data")
        return self.move, self.source, self.target

    @property
    def total(self) -> int:
        return sum(self.records.values())


class Action(Protocol):
    """One verb. `check` is called before and after `do`; what it returns says that the goal is reached, and how."""

    verb: str

    async def check(self, context: Context, *, ran: bool) -> str | None:
        """Words when there is nothing (more) to do, None otherwise. `ran`: `do` has just returned."""
        ...

    async def do(self, context: Context) -> None: ...


STREAMS: tuple[str, ...] = tuple(namespace.name for namespace in NAMESPACES)
