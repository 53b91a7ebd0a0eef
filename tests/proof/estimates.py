"""Promise 12: what is said to be left is what is left."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from tests.conftest import Project
from tests.support.target import run_sql

from .experiment import Experiment, Trial
from .lab import Lab, Torment

MB = 200
"""Large enough for a copy of many seconds: of a shorter one nothing is foretold."""


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(MB)
    at_start: list[float] = []
    errors: dict[int, list[float]] = {25: [], 50: []}
    sizes: list[float] = []
    while trial.done < trial.runs:
        with lab.project(data) as project:
            steps = json.loads(project.ok("plan", "--json"))["steps"]
            promised = sum(step.get("estimate_s") or 0 for step in steps)
            disk = sum(step.get("disk_bytes") or 0 for step in steps if step["verb"] == "migrate")
            empty = _bytes(project)
            began = time.monotonic()
            run = Torment(project, "apply", "--auto-approve")
            told = _stamped(run)
            trial.check(run.wait(300) == 0, run.said())
            took = time.monotonic() - began
            run.kill()
            at_start.append(promised / took)
            end = next((at for at, event in told if event["records"] >= event["total"]), None)
            for part, found in errors.items():
                first = next(
                    (
                        (at, event["eta_s"])
                        for at, event in told
                        if event["records"] >= event["total"] * part / 100 and event["eta_s"]
                    ),
                    None,
                )
                if first is not None and end is not None and end > first[0]:
                    found.append(first[1] / (end - first[0]))
            sizes.append(disk / (_bytes(project) - empty))
        trial.done += 1
    trial.figures["estimated / actual time at the start"] = statistics.median(at_start)
    trial.figures["estimated / actual bytes"] = statistics.median(sizes)
    trial.check(0.5 < statistics.median(sizes) < 3, f"the plan's estimate of the disk is off: {sizes}")
    for part, found in errors.items():
        if trial.check(found, f"nothing was told at {part} %"):
            trial.figures[f"estimated / actual time left at {part} %"] = statistics.median(found)
    trial.check(0.2 < statistics.median(at_start) < 5, f"the plan's estimate is off: {at_start}")


def _stamped(run: Torment) -> list[tuple[float, dict[str, Any]]]:
    """What the copy says of itself, with the moment at which it was read; returns when the run ended."""
    told: list[tuple[float, dict[str, Any]]] = []
    seen = 0
    while run.process.poll() is None:
        whole = run.events().split("\n")[:-1]
        for event in map(json.loads, whole[seen:]):
            if event["type"] == "progress" and (event["step"], event["phase"]) == (
                "migrate.notes",
                "copying",
            ):
                told.append((time.monotonic(), event))
        seen = len(whole)
        time.sleep(0.02)
    return told


def _bytes(project: Project) -> int:
    """What the database takes on the server's disk."""
    taken: int = run_sql(project.dsn or "", "SELECT pg_database_size(current_database())")[0][0]
    return taken


EXPERIMENTS = (
    Experiment(
        number=12,
        name="estimates",
        promise="estimates are honest",
        tried=f"{MB} MB from files to Postgres: the plan's estimate of seconds and of disk against those that it took, and the time left that was told at 25 and "
        "50 % of the copy against the time that was left; medians",
        baseline="no plan/apply tool prints any",
        runs=10,
        short=0,
        run=_run,
        not_in_ci="seconds are those of a machine that does nothing else; tests/unit/test_estimate has the arithmetic",
    ),
)
