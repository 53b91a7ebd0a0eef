"""The provision step: what is planned for each state of a server that this tool provisions."""

from __future__ import annotations

import pytest

from hybridrag.errors import BackendUnavailable
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.plan import HazardKind, Plan
from hybridrag.model.selection import Embedding
from hybridrag.model.wanted import Place, Wanted, everywhere
from hybridrag.planner import make_plan, provision_plan

ITEM = Wanted(
    database="notes",
    path="/x",
    workspace="notes",
    placement=everywhere(Place(name="pg", type="postgres", provisioned=True)),
    embedding=Embedding(model="m", dim=4),
    batch=10,
)


def plan(**server: object) -> Plan:
    """The plan for a database that already is on the server."""
    facts: dict[str, Facts] = {
        "backend/pg": {"provision": "docker", "server": 'Postgres container "box"', **server},  # type: ignore[dict-item]
        "registry/notes": {"backend": "pg", "backend_type": "postgres"},
    }
    return make_plan("dev", "digest", [ITEM], Observation(facts=facts), {})


@pytest.mark.parametrize(
    ("server", "summary", "reason"),
    [
        ({"state": "absent"}, "create and start the", 'backend "pg" is absent'),
        ({"state": "stopped"}, "start the", 'backend "pg" is stopped'),
        ({"state": "paused"}, "repair and start the", 'backend "pg" is paused'),
        ({"state": "running", "problem": "no answer"}, "repair and start the", "it runs, but: no answer"),
        (
            {"state": "running", "reachable": True, "change": "update", "differs": "memory: 1g → 2g"},
            "change the",
            "memory: 1g → 2g",
        ),
        (
            {"state": "stopped", "change": "replace", "differs": "shm_size: 64m → 1g"},
            "replace the",
            'backend "pg" is stopped; shm_size: 64m → 1g',
        ),
    ],
)
def test_one_step_that_names_the_difference(server: dict[str, object], summary: str, reason: str) -> None:
    """Each state has its verb and its reason."""
    (step,) = plan(**server).steps
    assert step.verb == "provision"
    assert step.summary.startswith(summary)
    assert step.reason == reason


def test_nothing_to_do_when_it_runs_as_declared() -> None:
    """A reachable server without a change needs no step."""
    assert plan(state="running", reachable=True).empty


def test_hazards_of_a_replacement() -> None:
    """A restart is shown; data that is left behind needs consent."""
    (step,) = plan(state="running", reachable=True, change="replace", restarts=True, leaves="old data").steps
    assert [hazard.kind for hazard in step.hazards] == [HazardKind.RESTART, HazardKind.OTHER_DATA]
    assert "its volume stays" in step.summary


def test_a_refusal_is_the_answer() -> None:
    """What cannot be made as declared stops the plan, with the way out, also while the server still serves."""
    for reachable in (True, False):
        with pytest.raises(BackendUnavailable) as caught:
            plan(state="running", reachable=reachable, change="refused", refusal="no", way_out="do this")
        assert "no" in caught.value.what
        assert caught.value.hint == "do this"


def test_a_server_alone_is_planned_as_for_a_database() -> None:
    """`backend start`: the same step, for the spec and the world that it was made for; nothing where it runs."""
    place = Place(name="pg", type="postgres", provisioned=True)
    server: Facts = {"provision": "docker", "server": 'Postgres container "box"', "state": "absent"}
    seen = Observation(facts={"backend/pg": server, "backend/other": {"state": "absent"}})
    made = provision_plan("dev", "digest", place, seen)
    assert made.steps == plan(state="absent").steps
    assert (made.environment, made.spec_digest, made.observation_digest) == ("dev", "digest", seen.digest)
    running = Observation(facts={"backend/pg": {**server, "state": "running", "reachable": True}})
    assert provision_plan("dev", "digest", place, running).empty
