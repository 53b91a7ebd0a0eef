"""Promise 1: a kill never corrupts state, wherever it falls."""

from __future__ import annotations

from hybridrag.failpoints import VARIABLE, Point
from tests.conftest import digests
from tests.support.target import content

from .experiment import Experiment, Trial
from .lab import Lab, Torment

APPLY = ("apply", "--auto-approve")


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(1)
    with lab.project(data) as project:
        project.ok(*APPLY)
        expected = content(project.dsn or "", "notes")
    before = digests(data)
    while trial.done < trial.runs:
        point = list(Point)[trial.done % len(Point)]
        nth = 1 if trial.done < len(Point) else trial.rng.randint(1, 12)
        with lab.project(data) as project:
            run = Torment(project, *APPLY, variables={VARIABLE: f"{point.value}=kill@{nth}"})
            code = run.wait(120)
            run.kill()
            trial.count("died" if code == -9 else "passed the point too seldom")
            trial.check(code in (-9, 0), f"{point.value}@{nth}: ended with {code}: {run.said()}")
            looked = project.run("plan", "--detailed-exitcode")
            trial.check(looked.returncode in (0, 2), f"{point.value}@{nth}: plan said {looked.stderr}")
            done = project.run(*APPLY)
            trial.check(done.returncode == 0, f"{point.value}@{nth}: the next apply said {done.stderr}")
            left = project.run("plan", "--detailed-exitcode")
            trial.check(left.returncode == 0, f"{point.value}@{nth}: something is left to do: {left.stdout}")
            trial.check(
                content(project.dsn or "", "notes") == expected, f"{point.value}@{nth}: another target"
            )
            trial.check(digests(project.data) == before, f"{point.value}@{nth}: the source was changed")
        trial.done += 1
    trial.figures["points"] = len(Point)


EXPERIMENTS = (
    Experiment(
        number=1,
        name="kill-at-every-point",
        promise="a kill never corrupts state",
        tried="SIGKILL of the whole process group before and after each journal commit, each batch, the marks, the registry's "
        "replacement, pause, switch and resume; then `plan` and `apply`: the result equals an uninterrupted run, and nothing is left to do",
        baseline="`terraform apply` on local state, killed 200 times in heavy writes: 104 empty state files; 100 kills of slow applies: "
        "98 orphans",
        runs=200,
        short=2,
        run=_run,
    ),
)
