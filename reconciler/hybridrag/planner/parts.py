"""Which slots of a database are where, where they belong, and what moves together. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hybridrag.model.data import ALL_SLOTS, Slot
from hybridrag.model.facts import Facts, digest_of
from hybridrag.model.wanted import Place, Wanted

JSON = "json"
"""The backend of a database that no registry entry names: its own files, whatever the spec calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Slots of one database that go from one backend to another together, or stay on one together."""

    id: str
    slots: frozenset[Slot]
    source: str
    target: Place

    @property
    def in_place(self) -> bool:
        return self.source == canonical(self.target)

    @property
    def ordered(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in Slot if slot in self.slots)


def canonical(place: Place) -> str:
    """The name that stands for a backend in facts: JSON files are one place, under whatever name."""
    return JSON if place.type == JSON else place.name


def in_use(entry: Facts) -> dict[Slot, str]:
    """The backend that serves each slot, from the facts of a database's registry entry."""
    found = {}
    for slot in Slot:
        name = entry.get(f"slot/{slot.value}") or entry.get("backend")
        kind = entry.get(f"slot_type/{slot.value}") or entry.get("backend_type") or JSON
        found[slot] = str(name) if name and kind != JSON else JSON
    return found


def parts_of(item: Wanted, entry: Facts) -> tuple[Part, ...]:
    """The parts of a database, moving ones and others, in the order of their first slots."""
    current = in_use(entry)
    together: dict[tuple[str, str], list[Slot]] = {}
    for slot in Slot:
        together.setdefault((current[slot], item.placement[slot].name), []).append(slot)
    targets = [target for _, target in together]
    found = []
    for (source, target), slots in together.items():
        name = item.database
        if len(together) > 1:
            name += f"@{target}" if targets.count(target) == 1 else f"@{source}-{target}"
        place = item.placement[slots[0]]
        found.append(Part(id=name, slots=frozenset(slots), source=source, target=place))
    return tuple(found)


def kept_state(part: Part) -> str:
    """Name of the fact that tells in which state the part's place in its target was left."""
    return f"kept_state/{canonical(part.target)}/{'+'.join(slot.value for slot in part.ordered)}"


def store_thing(database: str, backend: str, slots: Collection[Slot] = ALL_SLOTS) -> str:
    """The name under which a store's facts stand in an observation."""
    partial = "" if set(slots) == ALL_SLOTS else ":" + "+".join(slot.value for slot in Slot if slot in slots)
    return f"store/{database}@{backend}{partial}"


def migration_id(item: Wanted, part: Part, fingerprint: str) -> str:
    """Names one migration: whose it is (`owner_of`), then in which state and to which place."""
    owner = digest_of([item.database, item.path])
    slots = [slot.value for slot in part.ordered]
    place = [part.target.name, item.workspace, item.embedding.model, item.embedding.dim, slots]
    return f"{owner[:12]}-{digest_of([*place, fingerprint])[:12]}"


def names(slots: Collection[Slot]) -> str:
    """Slots for people; nothing when it is all of them."""
    return "" if set(slots) == ALL_SLOTS else ", ".join(slot.value for slot in Slot if slot in slots)


def groups(current: dict[Slot, str]) -> Iterator[tuple[str, frozenset[Slot]]]:
    """(backend, its slots) of a placement."""
    for name in dict.fromkeys(current.values()):
        yield name, frozenset(slot for slot in Slot if current[slot] == name)
