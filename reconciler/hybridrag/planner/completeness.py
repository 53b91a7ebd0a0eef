"""Streams that are missing whole: empty or absent, although records of another stream cannot be without them. Pure.

LightRAG writes each of these pairs together, and takes them away together. It does not promise equal numbers, so only a
stream with no record at all counts. Not every pair works both ways: a document that failed has a status and no text, and
`ainsert_custom_kg` writes chunks and nodes without documents (`lightrag/lightrag.py` 1.5.7).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hybridrag.model.data import BY_NAME, Slot, streams_of
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.plan import Hazard, HazardKind
from hybridrag.model.wanted import Wanted

from .parts import JSON, Part, canonical, store_thing

IMPLIES: tuple[tuple[str, str], ...] = (
    ("chunks", "text_chunks"),
    ("text_chunks", "chunks"),
    ("entities", "nodes"),
    ("nodes", "entities"),
    ("relationships", "edges"),
    ("edges", "relationships"),
    ("full_docs", "doc_status"),
    ("edges", "nodes"),
    ("full_entities", "full_docs"),
    ("full_entities", "doc_status"),
    ("full_entities", "text_chunks"),
    ("entity_chunks", "nodes"),
    ("entity_chunks", "entities"),
    ("relation_chunks", "edges"),
    ("relation_chunks", "relationships"),
)
"""(stream, the one that must hold something as well); of several that imply one, the first that holds records is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingStream:
    """A stream without a record beside `records` of the stream `beside`, of which it is a part."""

    namespace: str
    beside: str
    records: int

    def __str__(self) -> str:
        return f"no {BY_NAME[self.namespace].title} beside {self.records:,} {BY_NAME[self.beside].title}"


def missing_streams(records: Mapping[str, int | None]) -> tuple[MissingStream, ...]:
    """Each stream that is missing whole, once; None in `records` is a number that nobody knows."""
    found: dict[str, MissingStream] = {}
    for beside, name in IMPLIES:
        number = records.get(beside) or 0
        if number and records.get(name) == 0 and name not in found:
            found[name] = MissingStream(namespace=name, beside=beside, records=number)
    return tuple(found.values())


def in_one_sentence(missing: Sequence[MissingStream]) -> str:
    return "; ".join(map(str, missing))


def records_in_use(database: str, parts: Sequence[Part], observation: Observation) -> dict[str, int | None]:
    """Records of every stream where it is now, whatever backends the slots lie on; None where nobody counted."""
    found: dict[str, int | None] = {}
    for part in parts:
        name = canonical(part.target) if part.in_place else part.source
        thing = store_thing(database, name, part.slots)
        found.update(counted({**observation.detail(thing), **observation.of(thing)}, part.slots))
    return found


def counted(facts: Facts, slots: Collection[Slot]) -> dict[str, int | None]:
    """Records by stream of what was observed of a store."""
    values = {stream: facts.get(f"records/{stream}") for stream in streams_of(slots)}
    return {stream: value if isinstance(value, int) else None for stream, value in values.items()}


def streams_missing_of(
    missing: Sequence[MissingStream], slots: Collection[Slot]
) -> tuple[MissingStream, ...]:
    """Those that some slots should hold."""
    return tuple(each for each in missing if BY_NAME[each.namespace].slot in slots)


def incomplete(item: Wanted, part: Part, missing: Sequence[MissingStream]) -> tuple[Hazard, ...]:
    """The hazard of moving a part that lacks a whole stream; none where it lacks nothing."""
    mine = streams_missing_of(missing, part.slots)
    if not mine:
        return ()
    what = f'backend "{part.source}" holds {in_one_sentence(mine)}'
    way_out = (
        "restore it from a backup first"
        if part.source == JSON
        else f"see hybridrag drift {item.database} first"
    )
    return (
        Hazard(
            kind=HazardKind.INCOMPLETE_SOURCE,
            detail=f"{what}: it looks like half of a database, and only that half would be moved ({way_out})",
        ),
    )
