"""Promise 12: what is said to be left is what is left."""

from __future__ import annotations

import json
import statistics
import time

from tests.conftest import Project
from tests.support.target import run_sql

from .experiment import Experiment, Trial
from .lab import Lab, Torment


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(30, dim=384)
    at_start: list[float] = []
    errors: dict[int, list[float]] = {25: [], 50: []}
    sizes: list[float] = []
    while trial.done < trial.runs:
        with lab.project(data, dim=384) as project:
            steps = json.loads(project.ok("plan", "--json"))["steps"]
            promised = sum(step.get("estimate_s") or 0 for step in steps)
            disk = sum(step.get("disk_bytes") or 0 for step in steps if step["verb"] == "migrate")
            empty = _bytes(project)
            began = time.monotonic()
            run = Torment(project, "apply", "--auto-approve")
            trial.check(run.wait(300) == 0, run.said())
            took = time.monotonic() - began
            events = [json.loads(line) for line in run.events().splitlines()]
            run.kill()
            at_start.append(promised / took)
            told = [
                e
                for e in events
                if e["type"] == "progress" and e["step"] == "migrate.notes" and e["phase"] == "copying"
            ]
            for part, found in errors.items():
                first = next(
                    (
                        e
                        for e in told
                        if e["total"] and e["records"] >= e["total"] * part / 100 and e["eta_s"]
                    ),
                    None,
                )
                if first is not None and "at" in first:
                    found.append(first["eta_s"] / max(0.05, told[-1]["at"] - first["at"]))
            sizes.append(disk / (_bytes(project) - empty))
        trial.done += 1
    trial.figures["estimated / actual time at the start"] = statistics.median(at_start)
    trial.figures["estimated / actual bytes"] = statistics.median(sizes)
    trial.check(0.5 < statistics.median(sizes) < 3, f"the plan's estimate of the disk is off: {sizes}")
    for part, found in errors.items():
        if trial.check(found, f"nothing was told at {part} %"):
            trial.figures[f"estimated / actual time left at {part} %"] = statistics.median(found)
    trial.check(0.2 < statistics.median(at_start) < 5, f"the plan's estimate is off: {at_start}")


def _bytes(project: Project) -> int:
    """What the database takes on the server's disk."""
    taken: int = run_sql(project.dsn or "", "SELECT pg_database_size(current_database())")[0][0]
    return taken


EXPERIMENTS = (
    Experiment(
        number=12,
        name="estimates",
        promise="estimates are honest",
        tried="30 MB from files to Postgres: the plan's estimate of seconds and of disk against those that it took, and the time left that was told at 25 and "
        "50 % of the copy against the time that was left; medians",
        baseline="no plan/apply tool prints any",
        runs=10,
        short=0,
        run=_run,
        not_in_ci="seconds are those of a machine that does nothing else; tests/unit/test_estimate has the arithmetic",
    ),
)
