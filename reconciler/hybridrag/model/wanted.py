"""What the spec wants of one database, freed of YAML: the planner's only view of the spec."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .data import ALL_SLOTS, Slot
from .selection import Embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which size on a database in JSON files is warned about, in bytes: its largest file, all its files.

    `ingest_slowdown` (0 to 1): how much slower than usual ingesting may get.
    """

    file_bytes: int = 500_000_000
    total_bytes: int = 2_000_000_000
    ingest_slowdown: float = 0.5

    def exceeded(self, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """Files above their threshold, and "" when all of them together are above theirs."""
        files = [name for name, size in sizes.items() if size > self.file_bytes]
        return (*files, *([""] if sum(sizes.values()) > self.total_bytes else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A backend as the planner sees it: its name and type in the spec, which slots it can hold.

    `mends`: single records of a finished copy can be changed, so an older one need not be made anew.
    """

    name: str
    type: str
    provisioned: bool = False
    serves: frozenset[Slot] = ALL_SLOTS
    mends: bool = False


MOST_LANES = 4
"""Unless more are asked for: each takes memory and a session on every server."""


def usual_lanes() -> int:
    """One for each processor that we may use."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not say
        processors = os.cpu_count() or 1
    return min(MOST_LANES, processors)


def way_out(database: str, move_to: str | None) -> str:
    """The command that moves a database out of its files, ready to paste; `move_to` None: there is no server yet."""
    return f"hybridrag migrate {database} --to {move_to}" if move_to else "hybridrag backend setup-docker"


KEEP_SOURCE_S = 7 * 24 * 3600

Placement = Mapping[Slot, Place]
"""Where each of the four slots of a database belongs."""


def everywhere(place: Place) -> Placement:
    """All four slots on one backend."""
    return dict.fromkeys(Slot, place)


def in_words(names: Mapping[Slot, str]) -> str:
    """`pg`, or `pg (vector: milvus)` where slots lie apart."""
    first = names[Slot.KV]
    others = [f"{slot.value}: {name}" for slot, name in names.items() if name != first]
    return f"{first} ({', '.join(others)})" if others else first


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One database. `path` is absolute; `batch` is in records; `function` names the embedding function.

    `prevent_destroy`: the server that holds it may not be replaced or left behind. `pausable`: whatever writes it
    can be stopped, so it may go on writing until it has to; `stopping` says how. `keep_source_s`: for how many seconds what served before is
    kept at least. `quarantine`: records that the target cannot hold are put aside; otherwise they stop the migration.
    `lanes`: how many streams, or ranges of one, are worked on at once.
    """

    database: str
    path: str
    workspace: str
    placement: Placement
    embedding: Embedding
    batch: int
    thresholds: Thresholds = Thresholds()
    prevent_destroy: bool = False
    pausable: bool = False
    stopping: str = "stop the writer"
    keep_source_s: int = KEEP_SOURCE_S
    function: str | None = None
    quarantine: bool = False
    lanes: int = field(default_factory=usual_lanes)

    @property
    def backend(self) -> str:
        """Where it belongs, in words."""
        return in_words({slot: place.name for slot, place in self.placement.items()})

    @property
    def backend_type(self) -> str:
        """The type of its backend; mixed, where there are several types."""
        types = {place.type for place in self.placement.values()}
        return types.pop() if len(types) == 1 else "mixed"

    @property
    def places(self) -> tuple[Place, ...]:
        """The backends it belongs on, each once, in the order of the slots."""
        return tuple({place.name: place for place in self.placement.values()}.values())
