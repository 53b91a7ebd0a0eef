"""A target that holds what is not this migration's own: what would be overwritten, and what never is. Pure."""

from __future__ import annotations

from hybridrag.errors import PlanRefused
from hybridrag.model.data import NAMESPACES, streams_of
from hybridrag.model.facts import Facts
from hybridrag.model.marks import MarkState
from hybridrag.model.plan import Hazard, HazardKind, owner_of
from hybridrag.model.wanted import Wanted

from .parts import JSON, Part, canonical


def is_foreign(part: Part, facts: Facts, identity: str, kept: bool) -> bool:
    """Whether data of nobody's, or of a finished migration of another database, lies in the place.

    An unfinished copy of another database does not count: whoever makes it may be at work.
    """
    if kept or facts.get("problem"):
        return False
    begun, state = facts.get("migration"), facts.get("state")
    if part.target.type == JSON:
        # Files keep the mark of what once wrote them; once ours are complete, what stands there was agreed upon.
        ours = begun is not None and owner_of(str(begun)) == owner_of(identity)
        unmarked = begun is None or state == MarkState.SWITCHED or (ours and state == MarkState.COPYING)
        return unmarked and bool(facts.get("exists"))
    if begun is None:
        return state is None and holds(facts)
    return state == MarkState.SWITCHED and owner_of(str(begun)) != owner_of(identity)


def refuse_serving(item: Wanted, part: Part, entry: Facts) -> None:
    """Raises PlanRefused where another database is served from the place, or keeps its way back there."""
    if (owner := entry.get(f"taken/{canonical(part.target)}")) is not None:
        raise PlanRefused(
            f'database "{item.database}": {place(item, part)} {owner}; it is never overwritten',
            hint=f"set databases.{item.database}.path to a folder of its own"
            if part.target.type == JSON
            else f"set databases.{item.database}.workspace to a free name",
        )


def refuse_shared(item: Wanted, part: Part, entry: Facts) -> None:
    """Raises PlanRefused where another database is served from the place, also if it keeps a copy of this one."""
    if (owner := entry.get(f"serves_other/{canonical(part.target)}")) is not None:
        raise PlanRefused(
            f'database "{item.database}": {place(item, part)} {owner}; it is never overwritten',
            hint=f"set databases.{item.database}.path to a folder of its own"
            if part.target.type == JSON
            else f"set databases.{item.database}.workspace to a free name",
        )


def overwrite_hazard(item: Wanted, part: Part, facts: Facts, identity: str) -> Hazard:
    """What would be overwritten, in words."""
    where, what = place(item, part), held(part, facts)
    if part.target.type == JSON:
        detail = (
            f"{where} holds other data ({what}); its files are moved aside to .hybridrag/before-{identity}"
        )
    else:
        other = "the finished copy of another database" if facts.get("migration") else "other data"
        detail = f"{where} holds {other} ({what}), which is deleted for good to make room"
    return Hazard(kind=HazardKind.OVERWRITE, detail=detail)


def place(item: Wanted, part: Part) -> str:
    if part.target.type == JSON:
        return f'the folder "{item.path}"'
    return f'workspace "{item.workspace}" in backend "{part.target.name}"'


def holds(facts: Facts) -> bool:
    return any(_count(facts, namespace.name) for namespace in NAMESPACES) or bool(
        facts.get("foreign_vectors")
    )


def held(part: Part, facts: Facts) -> str:
    """Records by stream, vectors of another model, bytes."""
    counts = {name: _count(facts, name) for name in streams_of(part.slots)}
    shown = [f"{number:,} {name}" for name, number in counts.items() if number]
    if facts.get("foreign_vectors"):
        shown.append(f"vectors in {facts['foreign_vectors']}")
    size = facts.get("bytes")
    if isinstance(size, int) and size:
        shown.append(f"{size / 1e6:,.1f} MB")
    return ", ".join(shown) or "no records"


def _count(facts: Facts, namespace: str) -> int:
    value = facts.get(f"records/{namespace}")
    return value if isinstance(value, int) else 0
