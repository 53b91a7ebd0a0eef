"""The published schemas are what the models say now, and they notice when an output changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hybridrag.engine import Status
from hybridrag.engine.status import BackendStatus, DatabaseStatus, Migration
from hybridrag.journal import RunRecord
from hybridrag.model import events
from hybridrag.model.data import Slot
from hybridrag.model.facts import Observation
from hybridrag.model.plan import Hazard, HazardKind, Move, Plan, Step
from hybridrag.model.wanted import Thresholds
from hybridrag.planner import to_file
from hybridrag.render import contract
from hybridrag.render.status_contract import database_json
from hybridrag.render.status_json import status_json

SCHEMAS = Path(__file__).parents[2] / "schemas"


def validator(name: str) -> jsonschema.Draft7Validator:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def wrong(name: str, document: Any) -> list[str]:
    """What a published schema has against a document, as its reader sees it."""
    return [error.message for error in validator(name).iter_errors(json.loads(json.dumps(document)))]


def test_the_published_schemas_are_fresh() -> None:
    """Every file is generated; the failure names the command."""
    found = {name: (SCHEMAS / name).read_text("utf-8") for name in contract.texts()}
    assert found == contract.texts(), f"stale: run {contract.COMMAND}"


EVENTS: list[events.Event] = [
    events.PlanReady(run="r", steps=("a", "b"), databases=()),
    events.StepStarted(step="a", summary="s"),
    events.Progress(step="a", phase="copying", records=1, total=2, bytes=3, rate=None, eta_s=None),
    events.Progress(step="a", phase="copying", records=1, total=2, bytes=3, rate=1.5, eta_s=0),
    events.Warned(step="a", message="m"),
    events.Quarantined(step="a", database="notes", records=2, streams={"edges": 2}, file="q.jsonl"),
    events.StepDone(step="a", outcome="done", seconds=1, detail="d"),
    events.StepFailed(step="a", code="error", message="m"),
    events.RunDone(run="r", outcome="done", seconds=1.5, serving={"notes": "pg"}, quarantined={"notes": 2}),
]


def test_every_event_fits_and_any_other_line_does_not() -> None:
    """All kinds are described; a missing, an unknown or a mistyped field, or an unknown kind, is noticed."""
    described = validator("events").schema["properties"]["type"]["enum"]
    assert {event.type for event in EVENTS} == set(described)
    for event in EVENTS:
        line = event.as_dict()
        assert wrong("events", line) == []
        for name in line:
            assert wrong("events", {key: value for key, value in line.items() if key != name}), (event, name)
            assert wrong("events", {**line, name: [None]}), (event, name)
        assert wrong("events", {**line, "new": 1})
    assert wrong("events", {"version": 1, "type": "party"})


def _plan() -> dict[str, Any]:
    step = Step(id="a", verb="migrate", target="n", summary="s", reason="r", records=1, bytes=2, estimate_s=0.5,
                hazards=(Hazard(kind=HazardKind.DATA_COPY, detail="d"),))  # fmt: skip
    move = Move(
        id="n",
        database="n",
        slots=tuple(Slot),
        source="json",
        target="pg",
        workspace="n",
        fingerprint="f",
        migration_id="m",
    )
    plan = Plan(environment="dev", spec_digest="s", observation_digest="o", steps=(step,), moves={"n": move})
    facts = {"backend/pg": {"a": None, "b": True, "c": 1, "d": 1.5, "e": "x"}}
    file = to_file(plan, Observation(facts=facts), tool_version="0", spec_files=("x",), databases=("n",))
    made: dict[str, Any] = file.model_dump(mode="json")
    return made


def _database_status() -> DatabaseStatus:
    move = Migration(state="running", step="migrate.n", phase="copying", records=1, total=2, bytes=3, rate=None,
                     eta_s=1.5, error=None)  # fmt: skip
    return DatabaseStatus(
        database="n", backend="files", backend_type="json", wanted="pg", health="degraded", problems=("p",), hint=None,
        connected=True, latency_ms=None, records={"nodes": 1, "entities": None, "chunks": 2000},
        estimated=frozenset({"chunks"}), size=9, sizes={"vdb_chunks.json": 9}, move_to="pg",
        thresholds=Thresholds(file_bytes=1, total_bytes=9), oversized=("vdb_chunks.json",), migration=move,
    )  # fmt: skip


def _status() -> dict[str, Any]:
    database = _database_status()
    backend = BackendStatus(name="pg", type="postgres", facts={"type": "postgres", "reachable": False, "port": None},
                            details={"latency_ms": 1.5})  # fmt: skip
    run = RunRecord(id="r", started=1.5, finished=None, who="me@here", outcome=None, error=None)
    return status_json(
        Status(
            environment="dev",
            databases=(database,),
            backends=(backend,),
            last_run=run,
            running=False,
            paused=("n",),
        )
    )


@pytest.mark.parametrize(
    ("name", "document"),
    [("plan", _plan()), ("status", _status()), ("backend-status", database_json(_database_status()))],
)
def test_an_output_fits_and_any_other_shape_does_not(name: str, document: dict[str, Any]) -> None:
    """A key missing at the top, one that is new, or one of another type, is noticed."""
    assert wrong(name, document) == []
    assert wrong(name, {**document, "new": 1})
    for key in document:
        assert wrong(name, {other: value for other, value in document.items() if other != key}), key
        assert wrong(name, {**document, key: 1.5}), key


def test_a_status_says_everything_that_was_observed_of_a_backend() -> None:
    """Facts and details stand beside name and type; nothing is lost on the way to the machine form."""
    made = _status()
    assert made["backends"] == [
        {"name": "pg", "type": "postgres", "reachable": False, "port": None, "latency_ms": 1.5}
    ]
    assert made["last_run"] == {
        "id": "r", "started": 1.5, "finished": None, "who": "me@here", "outcome": None, "error": None
    }  # fmt: skip
    assert (made["version"], made["paused"]) == (1, ["n"])
