"""Case files: what is wanted and observed -> the plan, or the error. And what holds for every plan whatsoever."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridrag.actions import ORDER
from hybridrag.backends.postgres.observe import problems as postgres_problems
from hybridrag.errors import HybridragError
from hybridrag.model.data import ALL_SLOTS, NAMESPACES, Slot
from hybridrag.model.facts import Observation
from hybridrag.model.plan import Plan, Step
from hybridrag.model.selection import Embedding
from hybridrag.model.wanted import Place, Placement, Wanted
from hybridrag.planner import make_plan
from hybridrag.planner.parts import canonical, migration_id, parts_of, store_thing

HERE = Path(__file__).parent
BASE = yaml.safe_load((HERE / "base.yaml").read_text("utf-8"))
CASES = sorted(path.stem for path in HERE.glob("*.yaml") if path.stem != "base")


def _named(value: Any, names: dict[str, str]) -> Any:
    """The base with `$` and `$backend` filled in."""
    if isinstance(value, dict):
        return {_named(key, names): _named(item, names) for key, item in value.items()}
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(name, text)
    return value


def _wanted(case: dict[str, Any]) -> list[Wanted]:
    found = []
    for name, more in (case.get("databases") or {"notes": {}}).items():
        fields = _named({**BASE["wanted"], **more}, {"$": name})
        embedding = Embedding(model=fields.pop("model"), dim=fields.pop("dim"))
        found.append(Wanted(database=name, embedding=embedding, placement=_placement(fields), **fields))
    return found


def _placement(fields: dict[str, Any]) -> Placement:
    """`backend` as a spec says it: a name, or one for each slot; `backend_type` likewise."""
    names, kinds = fields.pop("backend"), fields.pop("backend_type")
    provisioned = fields.pop("provisioned")
    places = {}
    for slot in Slot:
        name = names if isinstance(names, str) else names[slot.value]
        kind = kinds if isinstance(kinds, str) else kinds[name]
        serves = frozenset({Slot.VECTOR}) if kind == "milvus" else ALL_SLOTS
        places[slot] = Place(
            name=name, type=kind, provisioned=provisioned, serves=serves, mends=kind != "json"
        )
    return places


def _observation(case: dict[str, Any], wanted: Sequence[Wanted]) -> Observation:
    facts: dict[str, dict[str, Any]] = {}
    for item in wanted:
        for place in item.places:
            facts.update(_named(BASE["observed"], {"$backend": place.name, "$": item.database}))
    for thing, change in (case.get("observed") or {}).items():
        if change is None:
            facts.pop(thing, None)
        else:
            facts[thing] = {**facts.get(thing, {}), **change}
    for item in wanted:
        for part in parts_of(item, facts.get(f"registry/{item.database}", {})):
            place = facts.get(store_thing(item.database, canonical(part.target), part.slots), {})
            if place.get("migration") == "$this":
                source = facts[store_thing(item.database, part.source, part.slots)]
                place["migration"] = migration_id(item, part, str(source["fingerprint"]))
            elif place.get("migration") == "$older":
                place["migration"] = migration_id(item, part, str(place["source_fingerprint"]))
                switching = facts.get(f"journal/{item.database}", {})
                if switching.pop("switching/$older", None):
                    switching[f"switching/{place['migration']}"] = True
    return Observation(facts=facts, details=case.get("details") or {})


def _plan(wanted: Sequence[Wanted], observation: Observation) -> Plan:
    found = {
        (item.database, place.name): postgres_problems(
            place.name, observation.of(f"backend/{place.name}"), item.embedding, pool=10
        )
        for item in wanted
        for place in item.places
        if place.type == "postgres"
    }
    return make_plan("dev", "spec", wanted, observation, found)


def _matches(step: Step, wanted: str | dict[str, Any]) -> None:
    expected = {"id": wanted} if isinstance(wanted, str) else dict(wanted)
    for name in ("summary", "reason"):
        assert str(expected.pop(name, "")) in getattr(step, name)
    if "hazards" in expected:
        assert [hazard.kind.value for hazard in step.hazards] == expected.pop("hazards")
    if "depends_on" in expected:
        assert list(step.depends_on) == expected.pop("depends_on")
    assert {name: getattr(step, name) for name in expected} == expected


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    """Each file says in `about` what is true."""
    case = yaml.safe_load((HERE / f"{name}.yaml").read_text("utf-8"))
    assert case.keys() <= {"about", "databases", "observed", "details", "expect"}
    wanted = _wanted(case)
    observation, expect = _observation(case, wanted), case["expect"]
    if error := expect.get("error"):
        with pytest.raises(HybridragError) as caught:
            _plan(wanted, observation)
        assert type(caught.value).__name__ == error["class"]
        for words in error["words"]:
            assert words in caught.value.what
        assert error.get("hint", "") in (caught.value.hint or "")
        return
    plan = _plan(wanted, observation)
    assert [step.id for step in plan.steps] == [
        step if isinstance(step, str) else step["id"] for step in expect["steps"]
    ]
    for step, described in zip(plan.steps, expect["steps"], strict=True):
        _matches(step, described)
    assert list(plan.moves) == expect.get("moves", [])
    for name, replaced in expect.get("replaces", {}).items():
        assert plan.moves[name].replaces == replaced
    told = " ".join(hazard.detail for hazard in plan.hazards)
    assert all(words in told for words in expect.get("words", []))
    assert list(plan.in_place) == expect.get("in_place", [])
    assert list(plan.warnings) == expect.get("warnings", [])
    _holds_for_every_plan(plan)


def _holds_for_every_plan(plan: Plan) -> None:
    seen: set[str] = set()
    for step in plan.steps:
        assert step.id not in seen, "a step stands twice"
        assert set(step.depends_on) <= seen, f"{step.id} depends on something later"
        assert step.id == f"{step.verb}.{step.target}"
        assert step.reason
        seen.add(step.id)
    about = {move.id: move.database for move in plan.moves.values()}
    for database in {about.get(step.target, step.target) for step in plan.steps}:
        mine = [step for step in plan.steps if about.get(step.target, step.target) == database]
        # A writer is stopped in its turn, or before everything that looks at its database.
        early = any(
            step.verb == "pause" for step in mine[: sum(step.verb == "provision" for step in mine) + 1]
        )
        verbs = [ORDER.index(step.verb) for step in mine if not (early and step.verb == "pause")]
        assert verbs == sorted(verbs), f"the verbs of {database} are out of order"
        names = {ORDER[verb] for verb in verbs}
        assert not names & {"pause"} or "resume" in names, "a pause without its end"
        assert names.isdisjoint({"migrate"}) or {"validate", "verify", "switch"} <= names
        for step in mine:
            if step.verb in ("migrate", "reclaim"):
                assert {f"validate.{step.target}", f"verify.{step.target}"} <= seen, "a part moved unverified"


_names = st.sampled_from(["one", "two", "ключ"])
KINDS = {"pg": "postgres", "pg2": "postgres", "files": "json", "vectors": "milvus"}
SERVES = {name: frozenset({Slot.VECTOR}) if kind == "milvus" else ALL_SLOTS for name, kind in KINDS.items()}
_backends = st.sampled_from(sorted(KINDS))
_value = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["pg", "files", "json", "postgres", "switched", "copying", "copied", "verified", "absent", "stopped", "f1", 96]),
)  # fmt: skip
_fact_names = st.sampled_from(
    ["type", "reachable", "state", "migration", "source_fingerprint", "fingerprint", "bytes", "exists", "missing", "problem",
     "hint", "backend", "backend_type", "drifted", "taken/pg", "taken/json", "slot/vector", "slot/kv", "slot_type/vector", "kept/json", "kept/pg", "left_behind/pg",
     "kept_state/pg/kv+doc_status+vector+graph", "schema", "paused", "foreign_vectors", "neighbours/chunks", "damaged/kv_store_x.json",
     "dim/vdb_chunks.json", "version_num", "version", "pgvector", "pgvector_available", "superuser", "may_create_schema",
     "may_create_tables", "encoding", "standby", "", "dim/", "records/"]
    + [f"records/{namespace.name}" for namespace in NAMESPACES]
)  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Wanted], Observation]:
    """Any wishes, and anything observed of them: facts of any value, present or not, on a healthy base or alone."""
    wanted = []
    facts: dict[str, dict[str, Any]] = {}
    for name in draw(st.lists(_names, max_size=3, unique=True)):
        one = draw(_backends)
        chosen = draw(
            st.just(dict.fromkeys(Slot, one)) | st.fixed_dictionaries(dict.fromkeys(Slot, _backends))
        )
        provisioned = draw(st.booleans())
        places = {
            slot: Place(
                name=backend,
                type=KINDS[backend],
                provisioned=provisioned,
                serves=SERVES[backend],
                mends=KINDS[backend] != "json",
            )
            for slot, backend in chosen.items()
        }
        embedding = Embedding(
            model=draw(st.none() | st.text(max_size=3)), dim=draw(st.integers(1, 4000) | st.just(96))
        )
        item = Wanted(
            database=name,
            path=f"/data/{name}",
            workspace=name,
            placement=places,
            embedding=embedding,
            batch=1000,
            pausable=draw(st.booleans()),
        )
        wanted.append(item)
        entry = draw(st.dictionaries(_fact_names, _value, max_size=3) | st.just({}))
        facts[f"registry/{name}"] = entry
        for part in parts_of(item, entry):
            for backend in (part.source, canonical(part.target)):
                healthy = _named(BASE["observed"], {"$backend": backend, "$": name})
                key = "store/$@json" if backend == "json" else "store/$@$backend"
                known = {
                    store_thing(name, backend, part.slots): BASE["observed"][key],
                    f"backend/{backend}": healthy[f"backend/{backend}"],
                }
                for thing, good in known.items():
                    start = draw(st.sampled_from([good, good, good, {}]))
                    facts[thing] = {**start, **draw(st.dictionaries(_fact_names, _value, max_size=3))}
                    if draw(st.integers(0, 9)) == 0:
                        del facts[thing]
        if draw(st.booleans()):
            facts[f"journal/{name}"] = {"paused": draw(_value), f"switching/{draw(_value)}": draw(_value)}
    return wanted, Observation(facts=facts)


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_whatever_is_observed_a_plan_is_sound_or_refused_in_words(
    world: tuple[list[Wanted], Observation],
) -> None:
    """No other exception; the same world gives the same plan; neither wishes nor facts are touched; order holds."""
    wanted, observation = world
    before = (repr(wanted), repr(observation), observation.digest)
    try:
        plan = _plan(wanted, observation)
    except HybridragError as error:
        told = str(error)
        with pytest.raises(type(error)) as again:
            _plan(wanted, observation)
        assert str(again.value) == told != ""
    else:
        assert _plan(wanted, observation) == plan
        _holds_for_every_plan(plan)
        moved = {
            plan.moves[step.target].database if step.target in plan.moves else step.target
            for step in plan.steps
            if step.verb != "provision"
        }
        assert {move.database for move in plan.moves.values()} <= moved
        assert moved | set(plan.in_place) | {item.database for item in wanted} == {
            item.database for item in wanted
        }
        assert not set(plan.in_place) & moved
    assert (repr(wanted), repr(observation), observation.digest) == before


@given(worlds(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_in_which_things_were_seen_changes_nothing(
    world: tuple[list[Wanted], Observation], random: Any
) -> None:
    """Observation is concurrent; its digest, and so staleness, must not depend on who answered first."""
    _, observation = world
    shuffled = list(observation.facts.items())
    random.shuffle(shuffled)
    turned = {thing: dict(reversed(list(facts.items()))) for thing, facts in shuffled}
    assert Observation(facts=turned).digest == observation.digest
