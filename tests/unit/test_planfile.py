"""The plan file: what is saved is what is loaded, an edit is noticed, and a stale plan says what moved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.errors import NotFound, PlanRefused, SpecInvalid
from hybridrag.model.data import Slot
from hybridrag.model.facts import Observation
from hybridrag.model.plan import Hazard, HazardKind, Move, Plan, Step
from hybridrag.planner import PlanFile, load, refuse_if_other, refuse_if_stale, save, to_file, to_plan

_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
_count = st.none() | st.integers(0, 2**62)
_seconds = st.none() | st.floats(0, 1e9) | st.integers(0, 9).map(float)
_hazards = st.builds(Hazard, kind=st.sampled_from(HazardKind), detail=_text)
_steps = st.builds(
    Step,
    **dict.fromkeys(("id", "verb", "target", "summary", "reason"), _text),
    depends_on=st.lists(_text, max_size=2).map(tuple),
    records=_count,
    bytes=_count,
    estimate_s=_seconds,
    hazards=st.lists(_hazards, max_size=2).map(tuple),
)
_moves = st.builds(
    Move,
    **dict.fromkeys(
        ("id", "database", "source", "target", "workspace", "fingerprint", "migration_id"), _text
    ),
    slots=st.lists(st.sampled_from(Slot), max_size=4).map(tuple),
    replaces=st.none() | _text,
)
_value = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | _text
    | st.floats(allow_nan=False, allow_infinity=False)
)
_facts = st.dictionaries(_text, st.dictionaries(_text, _value, max_size=3), max_size=3)
_plans = st.builds(
    Plan,
    environment=_text,
    spec_digest=_text,
    observation_digest=_text,
    steps=st.lists(_steps, max_size=3).map(tuple),
    moves=st.dictionaries(_text, _moves, max_size=2),
    in_place=st.lists(_text, max_size=2).map(tuple),
    warnings=st.lists(_text, max_size=2).map(tuple),
)


def _file(plan: Plan, observation: Observation) -> PlanFile:
    return to_file(plan, observation, tool_version="0", spec_files=("hybridrag.yaml",), databases=("notes",))


@given(plan=_plans, facts=_facts)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_a_saved_plan_is_the_same_plan(tmp_path: Path, plan: Plan, facts: dict[str, Any]) -> None:
    """Every field and every fact survives, with its type; the world it was made for is not stale."""
    observation = Observation(facts=facts, details={"backend/pg": {"latency_ms": 1.5}})
    plan = Plan(**{**{f: getattr(plan, f) for f in Plan.__slots__}, "observation_digest": observation.digest})
    path = tmp_path / "plan.json"
    save(_file(plan, observation), path)
    loaded = load(path)
    assert to_plan(loaded) == plan
    assert repr(dict(loaded.facts)) == repr({name: dict(inner) for name, inner in facts.items()})
    refuse_if_stale(loaded, plan.spec_digest, observation)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["plan.json"]


FACTS: dict[str, dict[str, Any]] = {
    "backend/pg": {"reachable": True, "version": "16.2"},
    "store/notes@json": {"records/nodes": 7, "fingerprint": "aaa", "bytes": 10, "damaged": None},
}
SOME = Plan(
    environment="dev",
    spec_digest="spec",
    observation_digest=Observation(facts=FACTS).digest,
    steps=(Step(id="switch.notes", verb="switch", target="notes", summary="s", reason="r"),),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    save(_file(SOME, Observation(facts=FACTS)), path)
    return path


def _edits(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every scalar of a document, once changed."""
    edited: list[tuple[str, Any]] = []

    def walk(node: Any, path: str, put: Any) -> None:
        if isinstance(node, dict):
            for key in node:
                walk(
                    node[key], f"{path}.{key}", lambda value, node=node, key=key: node.__setitem__(key, value)
                )
        elif isinstance(node, list):
            for index, item in enumerate(node):
                walk(
                    item,
                    f"{path}[{index}]",
                    lambda value, node=node, index=index: node.__setitem__(index, value),
                )
        else:
            new = {bool: not node, int: 8, str: f"{node}x"}.get(type(node), "x")
            put(new)
            edited.append((path, json.loads(json.dumps(data))))
            put(node)

    walk(data, "", None)
    return edited


def test_a_plan_edited_anywhere_is_refused(saved: Path) -> None:
    """Any changed value, a removed or an added key, a truncation at any byte: not a plan any more."""
    text = saved.read_text("utf-8")
    edits = _edits(json.loads(text))
    assert len(edits) > 20
    for place, edited in edits:
        saved.write_text(json.dumps(edited), encoding="utf-8")
        with pytest.raises(SpecInvalid, match="is not a plan"):
            pytest.fail(f"{place} was edited: {load(saved)}")
    for length in range(len(text.rstrip())):
        saved.write_text(text[:length], encoding="utf-8")
        with pytest.raises(SpecInvalid, match="is not a plan"):
            load(saved)
    saved.write_text(json.dumps(json.loads(text)), encoding="utf-8")
    assert load(saved).environment == "dev", "layout is not content"


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "3", '{"format": "terraform"}', "[" * 100_000, "\ufeff{}", '"\ud800']
)
def test_a_file_that_never_was_a_plan_is_refused(tmp_path: Path, text: str) -> None:
    """With words and exit code 3, whatever it is."""
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SpecInvalid, match="is not a plan") as caught:
        load(path)
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))


def test_a_plan_that_is_not_there_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """Both name the path and the next command."""
    with pytest.raises(NotFound, match="does not exist"):
        load(tmp_path / "none.json")
    with pytest.raises(NotFound, match="cannot be written"):
        save(_file(SOME, Observation()), tmp_path / "no" / "plan.json")
    with pytest.raises(SpecInvalid):
        load(tmp_path)


@pytest.mark.parametrize(
    ("thing", "change", "told"),
    [
        ("backend/pg", {"version": "17.0"}, 'backend/pg.version: "16.2" → "17.0"'),
        ("backend/pg", {"reachable": False}, "backend/pg.reachable: true → false"),
        ("store/notes@json", {"records/nodes": 8}, "store/notes@json.records/nodes: 7 → 8"),
        ("store/notes@json", {"records/nodes": None}, "store/notes@json.records/nodes: 7 → absent"),
        ("store/notes@json", {"damaged": "cut off"}, 'store/notes@json.damaged: absent → "cut off"'),
        ("store/notes@json", {"new": 1}, "store/notes@json.new: absent → 1"),
        ("registry/notes", {"backend": "pg"}, 'registry/notes: absent → {"backend": "pg"}'),
    ],
)
def test_a_stale_plan_names_what_moved(saved: Path, thing: str, change: dict[str, Any], told: str) -> None:
    """Before and after, in the observation's own names; details such as latency never make a plan stale."""
    now = {**FACTS, thing: {**FACTS.get(thing, {}), **change}}
    file = load(saved)
    with pytest.raises(PlanRefused) as caught:
        refuse_if_stale(file, "spec", Observation(facts=now))
    assert told in caught.value.what.splitlines()[1]
    assert len(caught.value.what.splitlines()) == 2
    refuse_if_stale(file, "spec", Observation(facts=FACTS, details={thing: {"latency_ms": 99}}))


def test_a_plan_for_another_spec_is_stale_and_a_long_list_is_cut(saved: Path) -> None:
    """The spec is named first; after ten lines the rest is counted."""
    now = {**FACTS, **{f"backend/{n:02}": {"reachable": False} for n in range(12)}}
    with pytest.raises(PlanRefused) as caught:
        refuse_if_stale(load(saved), "other", Observation(facts=now))
    lines = caught.value.what.splitlines()
    assert lines[1].strip() == "the spec was changed"
    assert lines[-1].strip() == "and 3 more"
    assert len(lines) == 12


def test_what_is_wrong_in_a_plan_is_named_by_its_place(saved: Path) -> None:
    """Down to the field of the step; nothing of it is run."""
    data = json.loads(saved.read_text("utf-8"))
    data["steps"][0]["verb"] = 7
    saved.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(SpecInvalid, match=r'plan\.json" is not a plan: steps\.0\.verb: ') as caught:
        load(saved)
    assert caught.value.where == str(saved)
    assert "hybridrag plan --out" in (caught.value.hint or "")


def test_what_a_live_writer_changes_is_an_estimate(tmp_path: Path) -> None:
    """Of its source only the place and our marks are conditions; of everything else every fact is. A new hazard is told."""
    source, target = "store/notes@json", "store/notes@pg"
    facts: dict[str, dict[str, Any]] = {
        source: {"records/nodes": 7, "place/kv": "here", "migration": None},
        target: {"records/nodes": 0},
    }
    move = Move(
        id="notes", database="notes", slots=tuple(Slot), source="json", target="pg", workspace="w",
        fingerprint="aaa", migration_id="m",
    )  # fmt: skip
    step = Step(id="migrate.notes", verb="migrate", target="notes", summary="s", reason="r")
    plan = replace(
        SOME, observation_digest=Observation(facts=facts).digest, moves={"notes": move}, steps=(step,)
    )
    file = _file(plan, Observation(facts=facts))

    def stale(thing: str, live: list[str], **change: Any) -> bool:
        now = {**facts, thing: {**facts[thing], **change}}
        try:
            refuse_if_stale(file, "spec", Observation(facts=now), live)
        except PlanRefused:
            return True
        return False

    for name in ("records/nodes", "records/chunks", "bytes", "fingerprint", "dim/vdb_chunks.json", "blank/x"):
        assert not stale(source, ["notes"], **{name: 8})
        assert stale(source, [], **{name: 8})
        assert stale(source, ["other"], **{name: 8})
        assert stale(target, ["notes"], **{name: 8})
    for name in ("place/kv", "migration", "state", "server"):
        assert stale(source, ["notes"], **{name: "other"})

    later = replace(plan, moves={"notes": replace(move, fingerprint="bbb", migration_id="n")})
    refuse_if_other(file, later, ["notes"])
    with pytest.raises(PlanRefused, match="edited"):
        refuse_if_other(file, later)
    lossy = replace(
        step, hazards=(Hazard(kind=HazardKind.FIELD_LOSS, detail="1 field in 3 chunks has no place"),)
    )
    with pytest.raises(PlanRefused, match="field_loss: 1 field in 3 chunks has no place"):
        refuse_if_other(file, replace(later, steps=(lossy,)), ["notes"])
