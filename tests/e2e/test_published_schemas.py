"""What the command prints for machines fits the schemas that are published for it."""

from __future__ import annotations

import json

from tests.conftest import Project
from tests.unit.test_render_contract import wrong


def test_the_real_outputs_fit_the_published_schemas(project: Project) -> None:
    """Plan, status and events, before, during and after a migration; the events tell the whole story in order."""
    assert wrong("status", json.loads(project.ok("status", "--json"))) == []
    plan = json.loads(project.ok("plan", "--json", "--out", "plan.json"))
    assert wrong("plan", plan) == []
    assert json.loads((project.folder / "plan.json").read_text("utf-8")) == plan

    project.ok("apply", "plan.json", "--events", "events.jsonl")
    lines = [json.loads(line) for line in (project.folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert [problem for line in lines for problem in wrong("events", line)] == []
    assert lines[0]["type"] == "plan"
    assert lines[0]["steps"] == [step["id"] for step in plan["steps"]]
    assert [line["step"] for line in lines if line["type"] == "step_started"] == lines[0]["steps"]
    assert {line["outcome"] for line in lines if line["type"] == "step_done"} <= {"done", "unchanged"}
    assert (lines[-1]["type"], lines[-1]["outcome"], lines[-1]["serving"]) == (
        "run_done",
        "done",
        {"notes": "pg"},
    )

    after = json.loads(project.ok("status", "--json"))
    assert wrong("status", after) == []
    assert (after["databases"][0]["backend"], after["last_run"]["outcome"]) == ("pg", "done")
    empty = json.loads(project.ok("plan", "--json"))
    assert wrong("plan", empty) == []
    assert (empty["steps"], empty["in_place"]) == ([], ["notes"])
