"""From what is wanted and what was observed to a plan. Pure: no clock, no disk, no network, nothing to write with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hybridrag.actions.overwriting import seen_in
from hybridrag.errors import BackendUnavailable, HybridragError, PlanRefused
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.marks import FINISHED, MarkState
from hybridrag.model.plan import Move, Plan, Step
from hybridrag.model.vectors import elsewhere_in
from hybridrag.model.wanted import Place, Wanted
from hybridrag.model.workspaces import server_warning

from .completeness import counted, incomplete, missing_streams
from .embedding import (
    Serving,
    is_named,
    refuse_losing,
    refuse_strangers,
    refuse_told,
    serving_of,
    told_in,
)
from .losses import damage_in_place, refuse_emptied, refuse_vanished
from .moving import bracket, completing, moving, repointing
from .overwriting import is_foreign, refuse_serving, refuse_shared
from .parts import JSON, Part, in_use, migration_id, parts_of, store_thing
from .protect import Kept, kept_by, refuse_replaced
from .provisioning import provision
from .refused import Found, FoundOf, remembered
from .room import room_warnings
from .stores import (
    blank_files,
    reachable_source,
    reclaimable,
    refuse_same_place,
    refuse_two_servers,
    refuse_unsound,
    total,
    usable_source,
    usable_target,
    way_back,
)

Problems = Mapping[tuple[str, str], Sequence[HybridragError]]
"""Per database and wanted backend, why that server, as observed, cannot take it (`Backend.problems`)."""


@dataclass(slots=True)
class _Made:
    """What is planned for one database."""

    steps: list[Step] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """One part, its move, and what was observed of both ends. `reclaims`: the kept copy there is taken back."""

    part: Part
    move: Move
    source: Facts
    target: Facts
    reclaims: bool


def make_plan(
    environment: str,
    spec_digest: str,
    wanted: Sequence[Wanted],
    observation: Observation,
    problems: Problems,
    kept: Kept | None = None,
    found: Found | None = None,
) -> Plan:
    """The plan for some databases. Raises what stands in the way, all databases' reasons at once.

    `kept`: servers that must stay for the sake of databases the plan is not about. `found`: by earlier runs.
    """
    steps: list[Step] = []
    moves: dict[str, Move] = {}
    in_place: list[str] = []
    warnings: list[str] = []
    errors: list[HybridragError] = []
    keep = {**(kept or {}), **kept_by((item, _serving(item, observation)) for item in wanted)}
    for item in wanted:
        try:
            for place in item.places:
                refuse_replaced(place.name, observation.of(f"backend/{place.name}"), keep)
            made = _database(item, observation, problems, warnings, (found or Found()).of(item.database))
        except HybridragError as error:
            errors.append(error)
            continue
        made.steps += _release(item, observation, made.steps)
        moves.update({move.id: move for move in made.moves})
        if not made.steps:
            in_place.append(item.database)
        known = {step.id for step in steps}
        steps.extend(step for step in made.steps if step.id not in known)
    if errors:
        raise _together(errors)
    warnings += room_warnings(moves, steps, observation)
    return Plan(
        environment=environment,
        spec_digest=spec_digest,
        observation_digest=observation.digest,
        steps=tuple(steps),
        moves=moves,
        in_place=tuple(in_place),
        warnings=tuple(warnings),
    )


def _serving(item: Wanted, observation: Observation) -> set[str]:
    return set(in_use(observation.of(f"registry/{item.database}")).values())


def _together(errors: list[HybridragError]) -> HybridragError:
    if len(errors) == 1:
        return errors[0]
    first = errors[0]
    text = f"{len(errors)} databases cannot be planned:\n" + "\n".join(f"  {error}" for error in errors)
    return type(first)(text)


def provision_plan(environment: str, spec_digest: str, server: Place, observation: Observation) -> Plan:
    """The plan for a server alone. Raises BackendUnavailable where it cannot be made as declared."""
    return Plan(
        environment=environment,
        spec_digest=spec_digest,
        observation_digest=observation.digest,
        steps=tuple(provision(server, observation.of(f"backend/{server.name}"))),
    )


def _database(
    item: Wanted,
    observation: Observation,
    problems: Problems,
    warnings: list[str],
    found: FoundOf,
) -> _Made:
    entry = observation.of(f"registry/{item.database}")
    if entry.get("mislaid"):
        raise PlanRefused(str(entry["mislaid"]), hint=str(entry.get("way_out")))
    if any(place.type != JSON for place in item.places) and (
        warning := server_warning(item.database, item.workspace)
    ):
        warnings.append(warning)
    if entry.get("contradiction"):
        _refuse_contradiction(item, entry, observation, found.served)
    made = _Made()
    parts = parts_of(item, entry)
    serving = serving_of(item, parts, observation)
    refuse_strangers(item, serving)
    told = told_in(observation.detail(f"embedding/{item.database}"))
    refuse_told(item, told, serving, named=is_named(parts))
    for place in item.places:
        made.steps += provision(place, observation.of(f"backend/{place.name}"))
    provisioned = {step.target for step in made.steps}
    for part in parts:
        _refuse_unserved(item, part)
        if part.in_place:
            _in_place(item, part, observation, part.target.name in provisioned, warnings, found.served)
    missing = missing_streams(serving.records)
    warnings += damage_in_place(item, parts, observation, found.served)
    places = {
        part.target.name: observation.of(store_thing(item.database, part.target.name, part.slots))
        for part in parts
    }
    refuse_two_servers(item, places)
    moving_parts = [part for part in parts if not part.in_place]
    if not moving_parts:
        if entry.get("drifted"):
            made.steps += repointing(item, made.steps)
        return made
    planned = [
        _part(item, part, observation, entry, problems, part.target.name in provisioned, warnings)
        for part in moving_parts
    ]
    if not sum(total(each.source, each.part.slots) for each in planned):
        warnings.append(f'database "{item.database}" holds no records at all')
    made.moves = [each.move for each in planned]
    open_parts = [
        moving(
            item,
            each.part,
            each.move,
            each.source,
            each.target,
            reclaims=each.reclaims,
            more=(
                *incomplete(item, each.part, missing),
                *remembered(item, each.move, found.refusals.get(each.move.id)),
            ),
        )
        for each in planned
        if each.target.get("state") != MarkState.SWITCHED
        or each.move.replaces
        or each.move.overwrites
        or each.reclaims
    ]
    if open_parts:
        made.steps += bracket(item, moving_parts, open_parts, made.steps)
    else:
        made.steps += completing(item, parts, made.steps)
    return made


def _refuse_contradiction(
    item: Wanted, entry: Facts, observation: Observation, served: Mapping[str, int]
) -> None:
    """Raises: a place that serves and holds nothing was emptied; of others it is to be said which one serves."""
    for part in parts_of(item, entry):
        facts = observation.of(store_thing(item.database, part.target.name, part.slots))
        if part.in_place and part.target.type != JSON and facts and not facts.get("problem"):
            mine = {name: count for name, count in served.items() if name in streams_of(part.slots)}
            refuse_emptied(item, part, facts, entry, mine)
    raise PlanRefused(
        f'database "{item.database}": {entry["contradiction"]}', hint=str(entry.get("remedy") or "") or None
    )


def _refuse_unserved(item: Wanted, part: Part) -> None:
    """Raises PlanRefused for a backend that cannot hold what it is given."""
    lacking = [slot.value for slot in part.ordered if slot not in part.target.serves]
    if lacking:
        raise PlanRefused(
            f'database "{item.database}": backend "{part.target.name}" ({part.target.type}) cannot hold the '
            f"{' and '.join(lacking)} slot{'s' if len(lacking) > 1 else ''}",
            hint=f"it can hold: {', '.join(sorted(slot.value for slot in part.target.serves))}; name another backend for "
            f"the rest: databases.{item.database}.backend: {{{', '.join(_slot_by_slot(item, part))}}}",
        )


def _slot_by_slot(item: Wanted, part: Part) -> list[str]:
    """How the spec says it, with a word to replace where a slot needs another backend."""
    unserved = {slot for slot in part.slots if slot not in part.target.serves}
    return [f"{slot.value}: {'OTHER' if slot in unserved else item.placement[slot].name}" for slot in Slot]


def _in_place(
    item: Wanted,
    part: Part,
    observation: Observation,
    provisioned: bool,
    warnings: list[str],
    served: Mapping[str, int],
) -> None:
    """Raises where the place that serves already cannot be used."""
    server, entry = observation.of(f"backend/{part.target.name}"), observation.of(f"registry/{item.database}")
    if part.target.type == JSON:
        facts = observation.of(store_thing(item.database, JSON, part.slots))
        if entry.get("path") is not None and facts.get("empty"):
            warnings.append(f'database "{item.database}" holds no records yet')
            return
        usable_source(item, part, facts, entry)
    elif not provisioned and not server.get("reachable"):
        hint = server.get("hint")
        raise BackendUnavailable(str(server.get("problem")), hint=str(hint) if hint else None)
    elif warning := refuse_vanished(item, part, server, entry):
        warnings.append(warning)
    facts = observation.of(store_thing(item.database, part.target.name, part.slots))
    if part.target.type != JSON and facts.get("creates"):
        raise BackendUnavailable(
            f'database "{item.database}" is served by backend "{part.target.name}", but its place is gone: '
            f"{facts.get('missing')}",
            hint=f"restore it from your backup; hybridrag status shows what is kept elsewhere{way_back(item, entry)}",
        )
    if part.target.type != JSON:
        mine = {name: count for name, count in served.items() if name in streams_of(part.slots)}
        refuse_emptied(item, part, facts, entry, mine)


def _release(item: Wanted, observation: Observation, steps: list[Step]) -> list[Step]:
    """A run that was killed after its switch left the pause open; nobody else would ever close it."""
    if not observation.of(f"journal/{item.database}").get("paused"):
        return []
    if any(step.verb == "resume" for step in steps):
        return []
    return [
        Step(
            id=f"resume.{item.database}",
            verb="resume",
            target=item.database,
            summary="release the source",
            reason="a pause is still held",
            depends_on=(steps[-1].id,) if steps else (),
        )
    ]


def _part(
    item: Wanted,
    part: Part,
    observation: Observation,
    entry: Facts,
    problems: Problems,
    provisioned: bool,
    warnings: list[str],
) -> _Planned:
    """Raises what stands in its way."""
    if part.source != JSON:
        reachable_source(item, part, observation.facts.get(f"backend/{part.source}"))
    key = JSON if part.target.type == JSON else part.target.name
    target = observation.of(store_thing(item.database, key, part.slots))
    source = usable_source(
        item, part, observation.of(store_thing(item.database, part.source, part.slots)), entry, target
    )
    fingerprint = str(source.get("fingerprint"))
    identity = migration_id(item, part, fingerprint)
    found = problems.get((item.database, part.target.name), ())
    if found and not provisioned:
        raise found[0]
    if not target:  # its server does not run yet
        target = {"creates": observation.of(f"backend/{key}").get("creates")}
    known = in_use(entry)[part.ordered[0]] != JSON or any(name.startswith("kept/") for name in entry)
    if target.get("elsewhere") and not known:
        raise PlanRefused(
            f'database "{item.database}": {target["elsewhere"]}, which was switched to, but the registry does not say so',
            hint=f"set backends.{part.target.name}.isolation to what it was, or restore the registry",
        )
    begun = observation.of(f"journal/{item.database}").get(f"switching/{target.get('migration')}")
    if begun and (item.pausable or target.get("source_fingerprint") != fingerprint):
        # A kill fell between the mark and the registry: it never served, and is the finished copy that it was.
        target = {**target, "state": MarkState.VERIFIED.value}
    refuse_same_place(item, part, source, target)
    refuse_unsound(item, target)
    if repeated := source.get("repeated_edges"):
        warnings.append(
            f'database "{item.database}": {repeated:,} edges in backend "{part.source}" only repeat another edge of the '
            "same two nodes; each comes over once"
        )
    warnings += blank_files(item, source)
    # Files were kept in the folder that the registry knows.
    kept = entry.get(f"kept/{key}") is not None and (key != JSON or entry.get("path") in (None, item.path))
    refuse_shared(item, part, entry)
    foreign = is_foreign(part, target, identity, kept)
    if foreign:
        refuse_serving(item, part, entry)
        # Files give way when they are switched to; a server's rows before they are copied to.
        replaces = "overwritten" if part.target.type == JSON else None
    else:
        replaces = usable_target(item, part, target, identity, kept)
    if not foreign and (kept or target.get("state") == MarkState.SWITCHED):
        held = Serving(
            part.target.name,
            counted(target, part.slots),
            elsewhere_in(target),
        )
        refuse_strangers(item, held, kept=True)
        refuse_losing(item, part, source, target, warnings)
    reclaims = replaces is not None and reclaimable(part, entry, target, fingerprint)
    if reclaims:
        replaces = None
    if part.target.mends and target.get("migration") is not None:
        finished = not replaces and target.get("state") in FINISHED
        if finished or reclaims:  # a finished copy of an earlier state: what changed is carried over
            identity = str(target.get("migration"))
    unknown = target.get("state") == MarkState.SWITCHED and not replaces and not reclaims and not foreign
    if unknown and target.get("source_fingerprint") != fingerprint:
        raise PlanRefused(
            f'database "{item.database}": backend "{part.target.name}" was already switched to, but the registry does not '
            f"say so, and its source has changed since; which of the two is right cannot be observed",
            hint=f'decide: restore the registry, or empty workspace "{item.workspace}" in "{part.target.name}" to migrate anew',
        )
    move = Move(
        id=part.id,
        database=item.database,
        slots=part.ordered,
        source=part.source,
        target=part.target.name,
        workspace=item.workspace,
        fingerprint=fingerprint,
        migration_id=identity,
        replaces=replaces,
        overwrites=seen_in(target) if foreign else None,
    )
    return _Planned(part=part, move=move, source=source, target=target, reclaims=reclaims)
