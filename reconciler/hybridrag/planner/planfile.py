"""The saved plan: JSON, mode 0600, no secrets, with the digests and facts of the world it was made for."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from hybridrag.errors import NotFound, PlanRefused, SpecInvalid
from hybridrag.model.data import Slot
from hybridrag.model.facts import Observation, Value, digest_of
from hybridrag.model.plan import Hazard, HazardKind, Move, Plan, Step
from hybridrag.model.strict import Strict
from hybridrag.model.whole_file import read_at_most

from .parts import store_thing

PLAN_VERSION = 2
_LARGEST = 64 << 20


class HazardModel(Strict):
    kind: HazardKind
    detail: str


class StepModel(Strict):
    id: str
    verb: str
    target: str
    summary: str
    reason: str
    depends_on: tuple[str, ...]
    records: int | None
    bytes: int | None
    estimate_s: float | None
    disk_bytes: int | None = None
    hazards: tuple[HazardModel, ...]


class MoveModel(Strict):
    id: str
    database: str
    slots: tuple[Slot, ...]
    source: str
    target: str
    workspace: str
    fingerprint: str
    migration_id: str
    replaces: str | None
    overwrites: str | None = None


class PlanFile(Strict):
    """A plan as `plan --json` prints it and `plan --out` saves it (`schemas/plan.schema.json`)."""

    format: Literal["hybridrag.plan"]
    version: Literal[2]
    tool_version: str
    environment: str
    spec_files: tuple[str, ...]
    spec_digest: str
    observation_digest: str
    plan_digest: str
    databases: tuple[str, ...]
    steps: tuple[StepModel, ...]
    moves: dict[str, MoveModel]
    in_place: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: dict[str, dict[str, Value]]

    def body_digest(self) -> str:
        """Digest over everything but itself; a plan edited by hand does not match."""
        return digest_of(self.model_dump(mode="json", exclude={"plan_digest"}))


def to_file(
    plan: Plan,
    observation: Observation,
    *,
    tool_version: str,
    spec_files: tuple[str, ...],
    databases: tuple[str, ...],
) -> PlanFile:
    """The plan in its saved form."""
    body: dict[str, Any] = {
        "format": "hybridrag.plan",
        "version": PLAN_VERSION,
        "tool_version": tool_version,
        "environment": plan.environment,
        "spec_files": spec_files,
        "spec_digest": plan.spec_digest,
        "observation_digest": plan.observation_digest,
        "plan_digest": "",
        "databases": databases,
        "steps": tuple(asdict(step) for step in plan.steps),
        "moves": {name: asdict(move) for name, move in plan.moves.items()},
        "in_place": plan.in_place,
        "warnings": plan.warnings,
        "facts": {name: dict(facts) for name, facts in observation.facts.items()},
    }
    unsigned = PlanFile.model_validate(body)
    return unsigned.model_copy(update={"plan_digest": unsigned.body_digest()})


def save(file: PlanFile, path: Path) -> None:
    """Write it with mode 0600, whole or not at all."""
    text = file.model_dump_json(indent=2) + "\n"
    temporary = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        temporary.replace(path)
    except OSError as error:
        raise NotFound(
            f'the plan cannot be written to "{path}": {error.strerror}', hint="choose another --out FILE"
        ) from None


def load(path: Path) -> PlanFile:
    """Read a saved plan. Raises NotFound or SpecInvalid."""
    try:
        raw = read_at_most(path, _LARGEST + 1)
        if len(raw) > _LARGEST:
            raise _invalid(path, "it is larger than 64 MiB")
        data = json.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f'the plan file "{path}" does not exist', hint=f"hybridrag plan --out {path}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _invalid(path, str(error)) from None
    try:
        file = PlanFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _invalid(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if file.plan_digest != file.body_digest():
        raise _invalid(path, "its content does not match its digest (edited or cut off?)")
    return file


def _invalid(path: Path, why: str) -> SpecInvalid:
    return SpecInvalid(
        f'"{path}" is not a plan: {why}', where=str(path), hint="make a new one: hybridrag plan --out FILE"
    )


def to_plan(file: PlanFile) -> Plan:
    """The plan in its working form."""
    return Plan(
        environment=file.environment,
        spec_digest=file.spec_digest,
        observation_digest=file.observation_digest,
        steps=tuple(
            Step(
                **{**dict(step), "hazards": tuple(Hazard(kind=h.kind, detail=h.detail) for h in step.hazards)}
            )
            for step in file.steps
        ),
        moves={name: Move(**dict(move)) for name, move in file.moves.items()},
        in_place=file.in_place,
        warnings=file.warnings,
    )


CONDITIONS = (
    "place/", "server", "migration", "state", "source_fingerprint", "problem", "refusal", "foreign_vectors",
)  # fmt: skip
"""Of a source that its writer changes all day these facts must be as they were: where it is, and our marks on it.

Everything else about it (sizes, counts, fingerprints) is an estimate. Whatever follows from it is planned again, and
`refuse_if_other` refuses what would become another plan.
"""


def refuse_if_stale(
    file: PlanFile, spec_digest: str, observation: Observation, live: Collection[str] = ()
) -> None:
    """Raise PlanRefused, naming what moved, when the world is not the one the plan was made for.

    `live`: databases whose writer can be stopped. What it writes meanwhile is no condition of the plan (`CONDITIONS`), and
    what is copied is what is there then.
    """
    moved: list[str] = []
    if file.spec_digest != spec_digest:
        moved.append("the spec was changed")
    now = _conditions(file, {name: dict(facts) for name, facts in observation.facts.items()}, live)
    before = _conditions(file, file.facts, live)
    if digest_of(now) != digest_of(before):
        moved += _what_moved(before, now) or ["the observed world"]
    if moved:
        shown = "\n    ".join(moved[:10]) + (f"\n    and {len(moved) - 10} more" if len(moved) > 10 else "")
        raise PlanRefused(
            f"the plan is stale; since it was made:\n    {shown}", hint="look at the new one: hybridrag plan"
        )


def _conditions(
    file: PlanFile, facts: Mapping[str, Mapping[str, Value]], live: Collection[str]
) -> dict[str, dict[str, Value]]:
    """The facts that must be as they were."""
    written = {
        store_thing(move.database, move.source, move.slots)
        for move in file.moves.values()
        if move.database in live
    }
    return {
        name: {key: value for key, value in each.items() if name not in written or key.startswith(CONDITIONS)}
        for name, each in facts.items()
    }


def refuse_if_other(file: PlanFile, made: Plan, live: Collection[str] = ()) -> None:
    """Raise PlanRefused where the file holds another plan than is made for the same world now. `live`: see above."""
    saved = to_plan(file)
    if _essence(saved, live) == _essence(made, live):
        return
    if moved := _other_steps(saved, made) if live else []:
        raise PlanRefused(
            "the plan is stale; what was written since it was made needs another one:\n    "
            + "\n    ".join(moved),
            hint="look at the new one: hybridrag plan",
        )
    raise PlanRefused(
        "the plan is not the one that this hybridrag makes for what it was made for (edited, or made by another version?)",
        hint="look at the new one: hybridrag plan",
    )


def _essence(plan: Plan, live: Collection[str]) -> tuple[Any, ...]:
    """What would be done, without words and estimates."""
    steps = [
        (step.id, step.verb, step.target, step.depends_on, {hazard.kind for hazard in step.hazards})
        for step in plan.steps
    ]
    moves = {
        name: replace(move, fingerprint="", migration_id="") if move.database in live else move
        for name, move in plan.moves.items()
    }
    return steps, moves, plan.in_place


def _other_steps(saved: Plan, made: Plan) -> list[str]:
    """In words, which steps and hazards came up or fell away."""
    before, now = ({step.id: step for step in plan.steps} for plan in (saved, made))
    lines = [f"{name}: a new step ({now[name].summary})" for name in now if name not in before]
    lines += [f"{name}: no such step any more" for name in before if name not in now]
    for name in now.keys() & before.keys():
        kinds = {hazard.kind for hazard in before[name].hazards}
        lines += [
            f"{name}: {each.kind.value}: {each.detail}"
            for each in now[name].hazards
            if each.kind not in kinds
        ]
    return sorted(lines)[:10]


_CAUSES = (".reachable", ".problem", ".damaged")


def _what_moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    from deepdiff import DeepDiff  # slow to import, and needed only here

    # However much moved, it is named fact by fact (the default gives up and shows the whole).
    difference = DeepDiff(before, after, view="tree", verbose_level=2, threshold_to_diff_deeper=0)
    lines: list[str] = []
    for kind in difference:
        for item in difference[kind]:
            path = ".".join(str(part) for part in item.path(output_format="list"))
            old, new = (_shown(value) for value in (item.t1, item.t2))
            if old != new:  # a fact that is None, and one that is not there
                lines.append(f"{path}: {old} → {new}")
    # Only some are shown: what the others follow from comes first.
    return sorted(lines, key=lambda line: (not line.partition(": ")[0].endswith(_CAUSES), line))


def _shown(value: Any) -> str:
    text = "absent" if value is None or repr(value) == "not present" else json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + '…"'
