"""From what is wanted and what was observed to a plan. Pure: no clock, no disk, no network, nothing to write with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hybridrag.actions import ORDER
from hybridrag.errors import (
    BackendUnavailable,
    HybridragError,
    NotFound,
    PlanRefused,
    SourceRefused,
    SourceUnreadable,
)
from hybridrag.model.data import NAMESPACES, Slot
from hybridrag.model.facts import Facts, Observation, digest_of
from hybridrag.model.plan import Hazard, HazardKind, Move, Plan, Step, owner_of
from hybridrag.model.wanted import Wanted

from .estimate import disk_bytes, examine_s, migrate_s, verify_s
from .protect import Kept, kept_by, refuse_replaced
from .room import room_warnings

Problems = Mapping[str, Sequence[HybridragError]]
"""Per database, why its wanted backend, as observed, cannot take it (`Backend.problems`)."""


def make_plan(
    environment: str,
    spec_digest: str,
    wanted: Sequence[Wanted],
    observation: Observation,
    problems: Problems,
    kept: Kept | None = None,
) -> Plan:
    """The plan for some databases. Raises what stands in the way, all databases' reasons at once.

    `kept`: servers that must stay for the sake of databases the plan is not about.
    """
    steps: list[Step] = []
    moves: dict[str, Move] = {}
    in_place: list[str] = []
    warnings: list[str] = []
    errors: list[HybridragError] = []
    keep = {**(kept or {}), **kept_by((item, in_use(item, observation)) for item in wanted)}
    for item in wanted:
        try:
            refuse_replaced(item, observation.of(f"backend/{item.backend}"), keep)
            made, move = _database(item, observation, problems.get(item.database, ()), warnings)
        except HybridragError as error:
            errors.append(error)
            continue
        made += _release(item, observation, made)
        if move is not None:
            moves[item.database] = move
        if not made:
            in_place.append(item.database)
        known = {step.id for step in steps}
        steps.extend(step for step in made if step.id not in known)
    if errors:
        raise _together(errors)
    warnings += room_warnings(wanted, steps, observation)
    return Plan(
        environment=environment,
        spec_digest=spec_digest,
        observation_digest=observation.digest,
        steps=tuple(steps),
        moves=moves,
        in_place=tuple(in_place),
        warnings=tuple(warnings),
    )


def _together(errors: list[HybridragError]) -> HybridragError:
    if len(errors) == 1:
        return errors[0]
    first = errors[0]
    text = f"{len(errors)} databases cannot be planned:\n" + "\n".join(f"  {error}" for error in errors)
    return type(first)(text)


def in_use(item: Wanted, observation: Observation) -> str | None:
    """Name of the backend that serves a database now; None means its JSON files."""
    entry = observation.of(f"registry/{item.database}")
    backend = entry.get("backend")
    # The registry may also name the JSON files' own backend, under whatever name the spec gives it.
    kind = observation.of(f"backend/{backend}").get("type") or entry.get("backend_type")
    return str(backend) if backend and kind != "json" else None


def provision_plan(environment: str, spec_digest: str, server: Wanted, observation: Observation) -> Plan:
    """The plan for a server alone. Raises BackendUnavailable where it cannot be made as declared."""
    return Plan(
        environment=environment,
        spec_digest=spec_digest,
        observation_digest=observation.digest,
        steps=tuple(_provision(server, observation.of(f"backend/{server.backend}"))),
    )


def _database(
    item: Wanted, observation: Observation, problems: Sequence[HybridragError], warnings: list[str]
) -> tuple[list[Step], Move | None]:
    current = in_use(item, observation)
    server = observation.of(f"backend/{item.backend}")
    if current == item.backend:
        return _in_place(item, observation, server), None
    if current is None and item.backend_type == "json":
        if _begins_empty(item, observation):
            warnings.append(f'database "{item.database}" holds no records yet')
        else:
            _source(item, observation)
        return [], None
    if item.backend_type == "json" or current is not None:
        raise PlanRefused(
            f'database "{item.database}" is served by backend "{current or "json"}"; moving it to "{item.backend}" is not '
            "supported yet (only JSON files to postgres is)",
            hint=f'set databases.{item.database}.backend back to "{current}"',
        )
    return _move(item, observation, server, problems, warnings)


def _in_place(item: Wanted, observation: Observation, server: Facts) -> list[Step]:
    steps = _provision(item, server)
    if not steps and not server.get("reachable") and item.backend_type != "json":
        hint = server.get("hint")
        raise BackendUnavailable(str(server.get("problem")), hint=str(hint) if hint else None)
    if observation.of(f"registry/{item.database}").get("drifted"):
        steps.append(
            Step(
                id=f"switch.{item.database}",
                verb="switch",
                target=item.database,
                summary=f'write the present address of backend "{item.backend}" into the registry',
                reason="the registry names another address than the spec",
                depends_on=tuple(step.id for step in steps),
            )
        )
    return steps


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


def _provision(item: Wanted, server: Facts) -> list[Step]:
    """Nothing when the server runs as declared; BackendUnavailable when it cannot be made so."""
    change = server.get("change")
    if not item.provisioned or (server.get("reachable") and not change):
        return []
    if change == "refused":
        way_out = server.get("way_out")
        raise BackendUnavailable(
            f'backend "{item.backend}": {server.get("refusal")}', hint=str(way_out) if way_out else None
        )
    state = str(server.get("state") or "absent")
    does = {"stopped": "start", "absent": "create and start"}.get(state, "repair and start")
    reason = f'backend "{item.backend}" is {state}'
    if state == "running" and not server.get("reachable"):
        reason = f"it runs, but: {server.get('problem')}"
    if change:
        does = {"update": "change", "replace": "replace"}[str(change)]
    if server.get("differs"):
        differs = str(server.get("differs"))
        reason = differs if state == "running" else f"{reason}; {differs}"
    hazards = []
    if server.get("restarts"):
        restart = "the server restarts, which closes open connections; its data is kept"
        hazards.append(Hazard(kind=HazardKind.RESTART, detail=restart))
    if server.get("leaves"):
        hazards.append(Hazard(kind=HazardKind.OTHER_DATA, detail=str(server.get("leaves"))))
    what = server.get("server") or f"{server.get('provision') or 'embedded'} {item.backend_type} server"
    return [
        Step(
            id=f"provision.{item.backend}",
            verb="provision",
            target=item.backend,
            summary=f"{does} the {what}{' (its volume stays)' if change == 'replace' else ''}",
            reason=reason,
            estimate_s=3.0 if server.get("provision") == "docker" else 1.0,
            hazards=tuple(hazards),
        )
    ]


def _begins_empty(item: Wanted, observation: Observation) -> bool:
    """A registered database whose folder is there and has nothing in it: nothing was written so far."""
    registered = observation.of(f"registry/{item.database}").get("path") is not None
    return registered and bool(observation.of(f"store/{item.database}@json").get("empty"))


def _source(item: Wanted, observation: Observation) -> Facts:
    """The JSON database, or the reason it cannot be read."""
    facts = observation.of(f"store/{item.database}@json")
    if not facts.get("exists"):
        what = facts.get("missing") or facts.get("problem") or f'the folder "{item.path}" does not exist'
        raise NotFound(
            f'database "{item.database}": {what}',
            hint=f"correct databases.{item.database}.path in the spec, then run hybridrag plan",
        )
    damaged = [(name.partition("/")[2], why) for name, why in facts.items() if name.startswith("damaged/")]
    if damaged:
        name, why = damaged[0]
        raise SourceUnreadable(
            f'database "{item.database}": "{name}" is damaged: {why}',
            where=f"{item.path}/{name}",
            hint=f"repair or restore {name} (LightRAG cannot open it either), then run hybridrag plan",
        )
    if facts.get("anchor"):
        raise SourceRefused(
            f'database "{item.database}" was written by a newer LightRAG, which notes its storages in "{facts["anchor"]}" '
            "and would refuse to start on others",
            hint="keep it on its JSON files until a hybridrag that knows the note; this one leaves it untouched",
        )
    for name, dim in facts.items():
        if name.startswith("dim/") and dim is not None and dim != item.embedding.dim:
            raise SourceRefused(
                f'database "{item.database}": its vectors have {dim} dimensions ({name[4:]}), the spec says '
                f"{item.embedding.dim}",
                hint=f"set databases.{item.database}.embedding.dim to {dim} (another model would need re-embedding)",
            )
    return facts


def _count(facts: Facts, namespace: str) -> int:
    value = facts.get(f"records/{namespace}")
    return value if isinstance(value, int) else 0


def migration_id(item: Wanted, fingerprint: str) -> str:
    """Names one migration: whose it is (`owner_of`), then in which state and to which place."""
    owner = digest_of([item.database, item.path])
    place = [item.backend, item.workspace, item.embedding.model, item.embedding.dim]
    return f"{owner[:12]}-{digest_of([*place, fingerprint])[:12]}"


def _move(
    item: Wanted,
    observation: Observation,
    server: Facts,
    problems: Sequence[HybridragError],
    warnings: list[str],
) -> tuple[list[Step], Move]:
    source = _source(item, observation)
    fingerprint = str(source.get("fingerprint"))
    target = observation.of(f"store/{item.database}@{item.backend}")
    identity = migration_id(item, fingerprint)
    move = Move(
        database=item.database,
        source="json",
        target=item.backend,
        workspace=item.workspace,
        fingerprint=fingerprint,
        migration_id=identity,
    )
    steps = _provision(item, server)
    if problems and not steps:
        raise problems[0]
    if target.get("problem"):
        hint = target.get("hint")
        raise BackendUnavailable(
            f'database "{item.database}": its place in backend "{item.backend}" cannot be observed: {target["problem"]}',
            hint=str(hint) if hint else "run hybridrag plan again",
        )
    if target.get("state") == "switched":
        return steps + _complete(item, target, fingerprint), move
    _refuse_foreign(item, target, identity)
    steps += _seven(item, source, target, identity, steps)
    if not sum(_count(source, namespace.name) for namespace in NAMESPACES):
        warnings.append(f'database "{item.database}" holds no records at all')
    return steps, move


def _complete(item: Wanted, target: Facts, fingerprint: str) -> list[Step]:
    """The data was moved and marked, but the registry does not say so: a kill in between, or a lost state folder."""
    if target.get("source_fingerprint") != fingerprint:
        raise PlanRefused(
            f'database "{item.database}": backend "{item.backend}" was already switched to, but the registry does not say '
            "so, and the JSON files have changed since; which of the two is right cannot be observed",
            hint=f'decide: restore the registry, or empty workspace "{item.workspace}" in "{item.backend}" to migrate anew',
        )
    return [
        Step(
            id=f"switch.{item.database}",
            verb="switch",
            target=item.database,
            summary=f'point the registry at backend "{item.backend}"',
            reason="the data was moved and verified, the registry does not say so yet",
        )
    ]


def _refuse_foreign(item: Wanted, target: Facts, identity: str) -> None:
    begun = target.get("migration")
    if begun is not None and owner_of(str(begun)) != owner_of(identity):
        raise PlanRefused(
            f'database "{item.database}": workspace "{item.workspace}" in backend "{item.backend}" holds the unfinished copy '
            "of another database",
            hint=f"set databases.{item.database}.workspace to a free name, or finish the other migration first",
        )
    held = {namespace.name: _count(target, namespace.name) for namespace in NAMESPACES}
    foreign = target.get("foreign_vectors")
    if target.get("migration") is None and (any(held.values()) or foreign):
        shown = (
            ", ".join(f"{count:,} {name}" for name, count in held.items() if count) or f"vectors in {foreign}"
        )
        raise PlanRefused(
            f'database "{item.database}": workspace "{item.workspace}" in backend "{item.backend}" already holds other '
            f"data ({shown})",
            hint=f"set databases.{item.database}.workspace to a free name, or empty that workspace yourself",
        )


def _seven(item: Wanted, source: Facts, target: Facts, identity: str, before: list[Step]) -> list[Step]:
    records = sum(_count(source, namespace.name) for namespace in NAMESPACES)
    vectors = sum(_count(source, namespace.name) for namespace in NAMESPACES if namespace.slot is Slot.VECTOR)
    value = source.get("bytes")
    size = value if isinstance(value, int) else 0
    ours = target.get("migration") == identity
    present = sum(_count(target, namespace.name) for namespace in NAMESPACES) if ours else 0
    copied = ours and target.get("state") in ("copied", "verified")
    hazards = [
        Hazard(kind=HazardKind.DATA_COPY, detail=f"{records:,} records are copied; the source stays as it is")
    ]
    if any(target.get(f"neighbours/{name}") for name in ("entities", "relationships", "chunks")):
        hazards.append(
            Hazard(
                kind=HazardKind.SHARED_INDEX,
                detail="other workspaces share the vector index: it stays in place, which makes the copy several times "
                "slower, and searches in it lose recall",
            )
        )
    if copied:
        summary = f"{present:,} records are already copied"
    elif present:
        summary = f"copy {records:,} records to {item.backend} (about {present:,} are there)"
    else:
        summary = f"copy {records:,} records to {item.backend} and build its indexes"
    name = item.database
    backend_differs = f'backend in use is "json", the spec says "{item.backend}"'
    texts = {
        "validate": (f"check {item.backend} and examine {records:,} records", backend_differs),
        "pause": (
            "hold the source still (no writer declared: watch it)",
            "the source must not change during the copy",
        ),
        "migrate": (summary, backend_differs),
        "verify": (
            f"compare {records:,} records with {item.backend}, both ways",
            "nothing is switched unverified",
        ),
        "switch": (f'point the registry at backend "{item.backend}"', backend_differs),
        "resume": ("release the source", "the pause ends with the switch, or with a failure"),
    }
    vectors_present = sum(_count(target, n.name) for n in NAMESPACES if n.slot is Slot.VECTOR) if ours else 0
    disk = (
        0
        if copied
        else disk_bytes(
            size,
            records,
            vectors,
            item.embedding.dim,
            present=present,
            present_vectors=vectors_present,
            logs_index=not item.provisioned,
        )
    )
    estimates = {
        "validate": examine_s(size),
        "migrate": 0.0 if copied else migrate_s(size, vectors, item.embedding.dim),
        "verify": verify_s(size),
    }
    steps: list[Step] = []
    previous = before[-1].id if before else None
    for verb in (verb for verb in ORDER if verb in texts):
        summary, reason = texts[verb]
        moves_data = verb in estimates
        step_hazards = tuple(hazards) if verb == "migrate" else ()
        if verb == "pause":
            step_hazards = (
                Hazard(kind=HazardKind.WRITER_PAUSE, detail="whatever writes the source must stay stopped"),
            )
        steps.append(
            Step(
                id=f"{verb}.{name}",
                verb=verb,
                target=name,
                summary=summary,
                reason=reason,
                depends_on=(previous,) if previous else (),
                records=records if moves_data else None,
                bytes=size if moves_data else None,
                estimate_s=round(estimates[verb], 1) if moves_data else None,
                disk_bytes=disk if verb in ("validate", "migrate") else None,
                hazards=step_hazards,
            )
        )
        previous = steps[-1].id
    return steps
