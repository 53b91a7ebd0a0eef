"""Promise 7: of many applies at the same moment exactly one runs."""

from __future__ import annotations

from tests.support.target import content

from .experiment import Experiment, Trial
from .lab import Lab, Torment

AT_ONCE = 16


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(1)
    while trial.done < trial.runs:
        with lab.project(data) as project:
            runs = [Torment(project, "apply", "--auto-approve") for _ in range(AT_ONCE)]
            codes = [run.wait(180) for run in runs]
            said = runs[0].said()
            for run in runs:
                run.kill()
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
            trial.check("0 missing, 0 extra, 0 different" in done, done)
            trial.count("winners", 1)
            trial.count("told that the lease is held", codes.count(9))
        trial.done += 1


EXPERIMENTS = (
    Experiment(
        number=7,
        name="one-winner",
        promise=f"of {AT_ONCE} applies at the same moment one carries the plan out",
        tried=f"{AT_ONCE} processes are started together on one environment; the others end with 9 (lease held), or find that "
        "the world moved or that nothing is left; the target holds everything once",
        baseline="the most duplicated request in Terraform's tracker is a lock that has to be removed by hand",
        runs=50,
        short=2,
        run=_run,
    ),
)
