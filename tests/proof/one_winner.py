"""Promise 7: of many applies at the same moment exactly one runs, and one that died or slept is in nobody's way."""

from __future__ import annotations

import json
import os
import time

from hybridrag.failpoints import VARIABLE, Point
from hybridrag.journal.lease import BEAT_S, TTL_S
from tests.conftest import Project
from tests.support.target import content

from .experiment import Experiment, Trial
from .lab import Lab, Torment

AT_ONCE = 16
APPLY = ("apply", "--auto-approve")
EQUAL = "0 missing, 0 extra, 0 different"
ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$0" "$@"')
"""Another machine, as far as a program is told; only root may be there."""
POINTS = (
    Point.BATCH_SENT,
    Point.BATCH_COMMITTED,
    Point.COPIED,
    Point.VERIFIED,
    Point.PAUSED,
    Point.SWITCH_MARKED,
    Point.RESUME_BEFORE,
)
"""Where a holder dies or falls asleep: not inside of the registry's replacement, where nobody can pass it."""


def _switched(project: Project) -> int:
    """How many runs came to switch the database."""
    found = [
        json.loads(project.ok("show", run["run"], "--json"))
        for run in json.loads(project.ok("history", "--json"))
    ]
    return sum(
        {"step": "switch.notes", "outcome": "done"}.items() <= step.items()
        for run in found
        for step in run["steps"]
    )


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(1)
    while trial.done < trial.runs:
        with lab.project(data) as project:
            runs = [Torment(project, *APPLY) for _ in range(AT_ONCE)]
            codes = [run.wait(180) for run in runs]
            for run in runs:
                run.kill()
            said = [run.said() for run, code in zip(runs, codes, strict=True) if code not in (0, 5, 9)]
            # One that came when the winner had finished finds nothing to do, or a world that is not the planned one.
            trial.check(set(codes) <= {0, 5, 9}, f"exit codes {codes}: {said}")
            trial.check(0 in codes, f"nobody won: {codes}")
            trial.check(
                project.run("plan", "--detailed-exitcode").returncode == 0, "there is still something to do"
            )
            trial.check(
                set(content(project.dsn or "", "notes")["ledger"]) == {("notes", "switched")},
                "the ledger says otherwise",
            )
            done = project.ok("verify", "notes")
            trial.check(EQUAL in done, done)
            switched = _switched(project)
            trial.check(switched == 1, f"{switched} runs switched")
            trial.count("winners", switched)
            trial.count("told that the lease is held", codes.count(9))
        trial.done += 1


def _taken_over(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(1)
    with lab.project(data) as project:
        project.ok(*APPLY)
        expected = content(project.dsn or "", "notes")
    kinds = ["killed here", "asleep"] + (["killed elsewhere"] if os.geteuid() == 0 else [])
    while trial.done < trial.runs:
        kind = kinds[trial.done % len(kinds)]
        point = trial.rng.choice(POINTS)
        what = f"{kind} at {point.value}"
        with lab.project(data, more="migration: {batch: 50}") as project:
            fault = f"{point.value}={'stop' if kind == 'asleep' else 'kill'}"
            through = ELSEWHERE if kind == "killed elsewhere" else ()
            holder = Torment(project, *APPLY, variables={VARIABLE: fault}, through=through)
            fell = holder.until_stopped() if kind == "asleep" else holder.wait(120) == -9
            trial.check(fell, f"{what}: it went on: {holder.said()}")
            if kind != "killed here":
                _wait_for_the_lease(trial, project, what)
            trial.ended(project.run(*APPLY), {0}, f"{what}: the next apply")
            if kind == "asleep":
                holder.wake()
                code = holder.wait(60)
                trial.check(
                    code == 9 and "was taken over by" in holder.said(), f"{what}: {code}, {holder.said()}"
                )
            trial.check(content(project.dsn or "", "notes") == expected, f"{what}: another target")
            trial.ended(project.run("plan", "--detailed-exitcode"), {0}, f"{what}: something is left to do")
            trial.check(EQUAL in project.run("verify", "notes").stdout, f"{what}: verify found differences")
            holder.kill()
        trial.count(kind)
        trial.done += 1


def _wait_for_the_lease(trial: Trial, project: Project, what: str) -> None:
    """Refused, with the holder's name, for as long as the lease lasts, which nobody has to end by hand."""
    began = time.monotonic()
    told = project.run(*APPLY)
    if trial.ended(told, {9}, f"{what}: an apply at once"):
        trial.check("(pid " in told.stderr, f"{what}: it does not say who holds the lease: {told.stderr}")
    while "Nobody holds the lease" not in project.run("unlock").stdout:
        if not trial.check(time.monotonic() - began < TTL_S + 2 * BEAT_S, f"{what}: the lease does not end"):
            return
        time.sleep(1)
    longest = round(time.monotonic() - began, 1)
    trial.figures["longest wait, s"] = max(longest, trial.figures.get("longest wait, s", 0))


EXPERIMENTS = (
    Experiment(
        number=7,
        name="one-winner",
        promise=f"of {AT_ONCE} applies at the same moment one carries the plan out",
        tried=f"{AT_ONCE} processes are started together on one environment; the others end with 9 (lease held), or find that "
        "the world moved or that nothing is left; the target holds everything once",
        baseline="the most duplicated request in Terraform's tracker is a lock that has to be removed by hand",
        runs=50,
        short=1,
        run=_run,
    ),
    Experiment(
        number=7,
        name="lease-taken-over",
        promise="a holder that died or sleeps is in nobody's way, and one that wakes up writes nothing any more",
        tried="the apply that holds the lease dies here, dies on a machine of another name, or is stopped by SIGSTOP, at a random point of "
        "its work: refused with its name while the lease lasts, the next apply ends without any unlocking, the sleeper that is woken "
        "ends with 9; target, plan and verification are those of an undisturbed run",
        baseline="the same lock that has to be removed by hand",
        runs=60,
        short=1,
        run=_taken_over,
    ),
)
