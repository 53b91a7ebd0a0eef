"""What every action is handed and what it must offer. Actions know verbs and ports, never a product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.events import Emit
from hybridrag.model.facts import Facts
from hybridrag.model.plan import HazardKind, Move, Step
from hybridrag.model.ports import Backend, Store
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.services import Halter, Memory, Pointer

from .standing import Standing, Standings


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
    `placement` is where each slot of the database is wanted; `backend` is what a provision step is about. `halter`
    stops whatever writes the database; None where nobody could be stopped. `serving` is what LightRAG needs to use it as
    the registry says now. `quarantine`: records that a target cannot hold are put aside. `lanes`: how many streams, or
    ranges of one, are worked on at once.
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
    lanes: int
    quarantine: bool
    placement: Mapping[Slot, Backend]
    memory: Memory
    standings: Standings
    pointer: Pointer
    halter: Halter | None
    serving: Callable[[], Selection]
    allowed: frozenset[HazardKind]
    emit: Emit

    @property
    def part(self) -> Part:
        """The only part of a step that moves data."""
        (part,) = self.parts
        return part

    @property
    def live(self) -> bool:
        """Whether the source may be written during this step: its writer is stopped later, and what it writes caught up with."""
        return self.halter is not None and self.part.backend.mends

    async def standing(self) -> Standing:
        """What the run knows of the part; what an earlier run found out about the same state is in the journal."""
        part = self.part
        found = await self.standings.of(part.move, part.source, live=self.live)
        if found.wanted is None:
            name = found.examined_id(part.move)
            known = self.memory.digests(name)
            if set(known) == set(part.streams):
                found.wanted = {stream: NamespaceDigest.from_bytes(known[stream]) for stream in part.streams}
                found.left_out = LeftOut.from_bytes(self.memory.left_out(name))
        return found


def serving_name(entry: Facts, slot: Slot) -> str:
    """The backend that serves a slot, from the facts of a registry entry; "json" for the database's own files."""
    name = entry.get(f"slot/{slot.value}") or entry.get("backend")
    kind = entry.get(f"slot_type/{slot.value}") or entry.get("backend_type") or "json"
    return str(name) if name and kind != "json" else "json"


class Action(Protocol):
    """One verb. `check` is called before and after `do`; what it returns says that the goal is reached, and how."""

    verb: str

    async def check(self, context: Context, *, ran: bool) -> str | None:
        """Words when there is nothing (more) to do, None otherwise. `ran`: `do` has just returned."""
        ...

    async def do(self, context: Context) -> None: ...
