"""Promise 1: a kill never corrupts state, wherever it falls."""

from __future__ import annotations

import json
import sys

from hybridrag.failpoints import VARIABLE, Point
from tests.conftest import Project, digests
from tests.support.target import content

from .experiment import Experiment, Trial
from .lab import Lab, Torment

APPLY = ("apply", "--auto-approve")
WRITES = """\
import json, pathlib, sys
path = pathlib.Path(sys.argv[1]) / "kv_store_full_docs.json"
docs = json.loads(path.read_text("utf-8"))
docs["doc-late"] = {"content": "written last", "file_path": "late.md"}
new = path.with_suffix(".new")
new.write_text(json.dumps(docs, ensure_ascii=False), "utf-8")
new.replace(path)
"""
"""The last that a writer does before it stands, the first time and every time."""


def _with_writer(project: Project) -> None:
    """Declare a writer that writes one record more whenever it is asked to stop."""
    script = project.folder / "stop.py"
    script.write_text(WRITES)
    writer = {
        "kind": "command",
        "pause": [sys.executable, str(script), str(project.data)],
        "resume": [sys.executable, "-c", ""],
    }
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(f"{spec.read_text()}    writer: {json.dumps(writer)}\n")


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(1)
    wanted = {}
    for written in (False, True):
        with lab.project(data) as project:
            if written:
                _with_writer(project)
            project.ok(*APPLY)
            wanted[written] = (content(project.dsn or "", "notes"), digests(project.data))
    # How often a point is passed is found by passing it: the number to die at is drawn from what was not too much.
    often: dict[tuple[Point, bool], int] = {}
    never: set[tuple[Point, bool]] = set()
    while trial.done < trial.runs:
        point = list(Point)[trial.done % len(Point)]
        # Only what a writer wrote meanwhile is caught up with.
        written = point == Point.CAUGHT_UP or bool(trial.done // len(Point) % 2)
        written ^= (point, written) in never
        first = trial.done < 2 * len(Point)
        nth = 1 if first else trial.rng.randint(1, often.get((point, written), 12))
        what = f"{point.value}@{nth}{' with a writer' if written else ''}"
        with lab.project(data) as project:
            if written:
                _with_writer(project)
            run = Torment(project, *APPLY, variables={VARIABLE: f"{point.value}=kill@{nth}"})
            code = run.wait(120)
            run.kill()
            # Passed less often than that, or never with (or without) a writer: no run of the experiment.
            if code == 0 and (nth > 1 or (point, not written) not in never):
                often[point, written] = max(1, nth - 1)
                never.update([(point, written)] if nth == 1 else [])
                continue
            trial.check(code == -9, f"{what}: ended with {code}: {run.said()}")
            looked = project.run("plan", "--detailed-exitcode")
            trial.check(looked.returncode in (0, 2), f"{what}: plan said {looked.stderr}")
            done = project.run(*APPLY)
            trial.check(done.returncode == 0, f"{what}: the next apply said {done.stderr}")
            left = project.run("plan", "--detailed-exitcode")
            trial.check(left.returncode == 0, f"{what}: something is left to do: {left.stdout}")
            found = (content(project.dsn or "", "notes"), digests(project.data))
            trial.check(found[0] == wanted[written][0], f"{what}: another target")
            trial.check(found[1] == wanted[written][1], f"{what}: the source was changed")
        trial.done += 1
    trial.figures["points"] = len(Point)


EXPERIMENTS = (
    Experiment(
        number=1,
        name="kill-at-every-point",
        promise="a kill never corrupts state",
        tried="SIGKILL of the whole process group before and after each journal commit, each batch, the marks, the registry's "
        "replacement, pause, switch and resume, half of the runs with a writer that writes before it stands; then `plan` and `apply`: the result equals an uninterrupted run, and nothing is left to do",
        baseline="`terraform apply` on local state, killed 200 times in heavy writes: 104 empty state files; 100 kills of slow applies: "
        "98 orphans",
        runs=200,
        short=2,
        run=_run,
    ),
)
