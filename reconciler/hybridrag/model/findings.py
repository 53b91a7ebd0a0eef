"""What a store tells of records, of itself and of its index."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .vectors import Elsewhere


@dataclass(slots=True, kw_only=True)
class Examination:
    """What a target says of records before they are written.

    `refused` maps a namespace and key to the reason the target cannot hold the record; `lost` counts,
    per namespace and field, values that the target has no place for; `carried` those that it keeps beside the record,
    where LightRAG does not see them, and `carried_by` the records of a namespace that have such. `left_out` are the positions of all refused
    records by namespace, as `BadRecord` counts them, in any order; filled by whoever reads a whole source.
    """

    refused: list[tuple[str, str, str]] = field(default_factory=list)
    refused_total: int = 0
    lost: dict[tuple[str, str], int] = field(default_factory=dict)
    carried: dict[tuple[str, str], int] = field(default_factory=dict)
    carried_by: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, array[int]] = field(default_factory=dict)

    def refuse(self, namespace: str, key: str, reason: str, *, keep: int = 20) -> None:
        """Note one record; only the first `keep` are listed, all are counted."""
        self.refused_total += 1
        if len(self.refused) < keep:
            self.refused.append((namespace, key, reason))

    def carry(self, namespace: str, names: Collection[str]) -> None:
        """Note the fields of one record that the target keeps beside it."""
        self.carried_by[namespace] = self.carried_by.get(namespace, 0) + 1
        for name in names:
            self.carried[namespace, name] = self.carried.get((namespace, name), 0) + 1

    def add(self, other: Examination) -> None:
        """Take in what was said of other records."""
        self.refused += other.refused[: max(0, 20 - len(self.refused))]
        self.refused_total += other.refused_total
        for key, count in other.lost.items():
            self.lost[key] = self.lost.get(key, 0) + count
        for key, count in other.carried.items():
            self.carried[key] = self.carried.get(key, 0) + count
        for name, count in other.carried_by.items():
            self.carried_by[name] = self.carried_by.get(name, 0) + count
        for name, positions in other.left_out.items():
            self.left_out.setdefault(name, array("Q")).extend(positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an examination of a source in one `state` (its fingerprint) found that its target `backend` cannot take.

    Of `records`, `refused_total` cannot be held, of which `refused` names some by stream, key and reason; `lost` are
    fields without a place there, by stream and name, with the number of records that have them.
    """

    backend: str
    state: str
    records: int
    refused: tuple[tuple[str, str, str], ...] = ()
    refused_total: int = 0
    lost: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What one cheap look at a store told.

    `records` by namespace, None where a glance cannot tell; those named in `estimated` are estimates. `sizes` are
    bytes by file name, empty where a server keeps the data. `problem`: why it cannot be used at all; `faults`:
    what is wrong with it otherwise, both in words. `state` is our mark on it, `copied` the records that a
    migration committed to it. `size`: bytes of a place on the server that is its alone, None where others share it.
    `warnings` are about the backend, the same for all that have them. `elsewhere`: vectors of the database under other models
    than the one that was looked for; `dims`: how long its vectors are, as far as the place tells.
    """

    records: Mapping[str, int | None] = field(default_factory=dict)
    estimated: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None
    faults: tuple[str, ...] = ()
    state: str | None = None
    copied: int = 0
    size: int | None = None
    warnings: tuple[str, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()
    dims: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """`share` (0 to 1) of the `nearest` vectors that a search through the index found, over `queries` queries.

    `remedy` says what to do where it is low.
    """

    share: float
    nearest: int
    queries: int
    by_namespace: Mapping[str, float]
    remedy: str | None

    def __str__(self) -> str:
        found = (
            f"search finds {self.share:.0%} of the {self.nearest} nearest vectors ({self.queries} queries)"
        )
        return f"{found}; {self.remedy}" if self.remedy else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """(key, cosine similarity) of the vectors nearest to each query, best first, as an engine compares them.

    `tolerance`: by how much the engine's way of keeping vectors may change a similarity.
    """

    found: list[list[tuple[str, float]]]
    tolerance: float
