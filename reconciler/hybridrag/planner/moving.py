"""The steps that move the parts of one database: validate all, one pause, copy and verify all, one switch. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hybridrag.actions import ONE_PART, ORDER
from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts
from hybridrag.model.marks import FINISHED
from hybridrag.model.plan import Hazard, HazardKind, Move, Step
from hybridrag.model.wanted import Wanted

from .estimate import delta_s, disk_bytes, examine_s, migrate_s, to_files_s, verify_s
from .overwriting import overwrite_hazard
from .parts import JSON, Part, names
from .stores import total

_REASONS = {
    "verify": "nothing is switched unverified",
    "follow": "the shorter is the pause",
    "catch_up": "the source may be written until the pause",
}


@dataclass(frozen=True, slots=True)
class Moving:
    """One part that is to be copied: what its three own steps say, cost and may cost. `bytes` are the source's."""

    part: Part
    records: int
    bytes: int
    texts: dict[str, str]
    reason: str
    estimates: dict[str, float]
    disk_bytes: int
    behind: bool
    """A finished copy of an earlier state is there, which only has to be brought up to date."""
    reclaims: bool
    """That copy was kept from an earlier move, and is taken back first."""
    hazards: tuple[Hazard, ...]


def moving(
    item: Wanted,
    part: Part,
    move: Move,
    source: Facts,
    target: Facts,
    *,
    reclaims: bool = False,
    more: Sequence[Hazard] = (),
) -> Moving:
    """The part in words and figures. `more`: hazards of its source."""
    records = total(source, part.slots)
    vectors = _vectors(source, part)
    value = source.get("bytes")
    size = value if isinstance(value, int) else 0
    ours = target.get("migration") == move.migration_id
    present = total(target, part.slots) if ours else 0
    copied = reclaims or (ours and target.get("state") in FINISHED)
    behind = reclaims or (copied and target.get("source_fingerprint") != move.fingerprint)
    place = part.target.name
    what = f"{records:,} records" + (f" ({names(part.slots)})" if names(part.slots) else "")
    if behind:
        copying = f"{present:,} records of an earlier state are already copied"
    elif copied:
        copying = f"{present:,} records are already copied"
    elif present:
        copying = f"copy {what} to {place} (about {present:,} are there)"
    elif target.get("creates"):
        copying = f"create {target['creates']} in {place}, copy {what} into it and build its indexes"
    else:
        copying = f"copy {what} to {place}" + (" and build its indexes" if part.target.type != JSON else "")
    return Moving(
        part=part,
        records=records,
        bytes=size,
        texts={
            "validate": f"check {place} and examine {what}",
            "migrate": copying,
            "reclaim": f"take back the copy kept in {place}: only what differs is written",
            "verify": f"compare {what} with {place}, both ways",
            "follow": "carry over what was written during the copy, while the writer goes on",
            "catch_up": "carry over what was written since",
        },
        reason=_differs(part),
        estimates={
            "validate": examine_s(size, records),
            "migrate": 0.0
            if copied
            else to_files_s(records, vectors, item.embedding.dim)
            if part.target.type == JSON
            else migrate_s(size, records, vectors, item.embedding.dim),
            "verify": verify_s(size, records),
            "catch_up": delta_s(size),
        },
        disk_bytes=0
        if copied or part.target.type == JSON
        else disk_bytes(
            size,
            records,
            vectors,
            item.embedding.dim,
            present=present,
            present_vectors=_vectors(target, part) if ours else 0,
            logs_index=not part.target.provisioned,
        ),
        behind=behind,
        reclaims=reclaims,
        hazards=(*_hazards(item, part, move, records, target, reclaims=reclaims), *more),
    )


def _vectors(facts: Facts, part: Part) -> int:
    return total(facts, part.slots & {Slot.VECTOR})


def _differs(part: Part) -> str:
    shown = names(part.slots)
    return f'backend in use{f" for {shown}" if shown else ""} is "{part.source}", the spec says "{part.target.name}"'


def _hazards(
    item: Wanted, part: Part, move: Move, records: int, target: Facts, *, reclaims: bool
) -> tuple[Hazard, ...]:
    copied = "what differs is written" if reclaims else f"{records:,} records are copied"
    copy = Hazard(kind=HazardKind.DATA_COPY, detail=f"{copied}; the source stays as it is")
    found = [copy]
    if any(target.get(f"neighbours/{name}") for name in ("entities", "relationships", "chunks")):
        found.append(
            Hazard(
                kind=HazardKind.SHARED_INDEX,
                detail="other workspaces share the vector index: it stays in place, which makes the copy several times "
                "slower, and searches in it lose recall",
            )
        )
    if interferes := target.get("interferes"):
        found.append(
            Hazard(
                kind=HazardKind.INTERFERENCE,
                detail=f"what is written there is seen, and may be changed or refused, by {interferes}",
            )
        )
    if move.replaces and part.target.type != JSON:
        found.append(
            Hazard(
                kind=HazardKind.REPLACE_KEPT,
                detail=f"the copy that was kept in {part.target.name} is deleted to make room for the present data",
            )
        )
    if move.overwrites is not None:
        found.append(overwrite_hazard(item, part, target, move.migration_id))
    return tuple(found)


def completing(item: Wanted, parts: Sequence[Part], before: Sequence[Step]) -> list[Step]:
    """The data was moved and marked, but the registry does not say so: a kill in between, or a lost state folder."""
    summary = f"point the registry at backend {_targets(parts)}"
    return _pointing(
        item, summary, "the data was moved and verified, the registry does not say so yet", before
    )


def repointing(item: Wanted, before: Sequence[Step]) -> list[Step]:
    """The place that serves has another address than the registry tells."""
    names = ", ".join(f'"{place.name}"' for place in item.places)
    summary = f"write the present address of backend {names} into the registry"
    return _pointing(item, summary, "the registry names another address than the spec", before)


def _pointing(item: Wanted, summary: str, reason: str, before: Sequence[Step]) -> list[Step]:
    """Only the registry is written. A writer that can be stopped stands meanwhile, and starts on what it names then."""
    said = {"switch": (summary, reason)}
    if item.pausable:
        said = {
            "pause": (item.stopping, "nobody may write while the registry is"),
            **said,
            "resume": ("release the source", "the pause ends with the switch, or with a failure"),
        }
    stopped = Hazard(
        kind=HazardKind.WRITER_PAUSE,
        detail="its writer is stopped for a moment, and started again on the backend that serves then",
    )
    steps: list[Step] = []
    for verb, (words, why) in said.items():
        previous = (steps or before)[-1:]
        steps.append(
            Step(
                id=f"{verb}.{item.database}",
                verb=verb,
                target=item.database,
                summary=words,
                reason=why,
                depends_on=tuple(step.id for step in previous),
                hazards=(stopped,) if verb == "pause" else (),
            )
        )
    return steps


def _targets(parts: Sequence[Part]) -> str:
    return " and ".join(f'"{name}"' for name in dict.fromkeys(part.target.name for part in parts))


def _needed(verb: str, each: Moving, item: Wanted, early: bool) -> bool:
    if verb in ("migrate", "reclaim"):
        return each.reclaims == (verb == "reclaim")
    if verb == "follow":
        return item.pausable and not early
    return verb != "catch_up" or each.behind or (item.pausable and each.part.target.mends)


def _paused_s(parts: Sequence[Moving], early: bool) -> int:
    """For how long the writer is expected to stand."""
    verbs = ("validate", "migrate", "verify") if early else ("catch_up",)
    return math.ceil(sum(each.estimates[verb] for each in parts for verb in verbs))


def bracket(
    item: Wanted, parts: Sequence[Part], open_parts: Sequence[Moving], before: Sequence[Step]
) -> list[Step]:
    """All steps from the first examination to the end of the pause, each depending on the one before."""
    whole = {
        "pause": (
            item.stopping if item.pausable else "hold the source still (no writer declared: watch it)",
            "the source must not change between the copy and the switch",
        ),
        "switch": (f"point the registry at backend {_targets(parts)}", _differs(parts[0])),
        "resume": ("release the source", "the pause ends with the switch, or with a failure"),
    }
    # A copy that cannot be brought up to date later must not begin before the writer is stopped.
    early = item.pausable and not all(each.part.target.mends for each in open_parts)
    detail = "whatever writes the source must stay stopped"
    if item.pausable:
        detail = f"its writer is stopped for about {_paused_s(open_parts, early)} s, "
        detail += "and started again on the backend that serves then"
    stopped = Hazard(kind=HazardKind.WRITER_PAUSE, detail=detail)
    steps: list[Step] = []

    def add(verb: str, target: str, summary: str, reason: str, **more: object) -> None:
        previous = steps[-1] if steps else before[-1] if before else None
        depends_on = (previous.id,) if previous else ()
        steps.append(
            Step(id=f"{verb}.{target}", verb=verb, target=target, summary=summary, reason=reason,
                 depends_on=depends_on, **more)  # type: ignore[arg-type]
        )  # fmt: skip

    for verb in sorted(
        ORDER,
        key=lambda verb: ORDER.index("validate") - 0.5 if early and verb == "pause" else ORDER.index(verb),
    ):
        if verb == "retire":
            continue
        if verb in whole:
            add(verb, item.database, *whole[verb], hazards=(stopped,) if verb == "pause" else ())
        elif verb in ONE_PART:
            for each in open_parts:
                if not _needed(verb, each, item, early):
                    continue
                add(
                    verb,
                    each.part.id,
                    each.texts[verb],
                    _REASONS.get(verb, each.reason),
                    records=each.records if verb in each.estimates else None,
                    bytes=each.bytes if verb in each.estimates else None,
                    estimate_s=round(each.estimates[verb], 1) if verb in each.estimates else None,
                    disk_bytes=each.disk_bytes if verb in ("validate", "migrate") else None,
                    hazards=each.hazards if verb in ("migrate", "reclaim") else (),
                )
    return steps
