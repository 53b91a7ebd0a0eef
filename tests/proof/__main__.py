"""`python -m tests.proof [--short] [--runs N [--publish]] [--seed N] [NAME…]`: run experiments, print what they found; at full
length, or with `--publish`, keep it and write `docs/reliability.md`."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import pkgutil
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import tests.proof as package

from .experiment import Experiment, Found, Trial
from .lab import Lab
from .report import keep, table

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks" / "results" / "proof.json"
REPORT = ROOT / "docs" / "reliability.md"
INTERRUPTED = 130


def experiments() -> list[Experiment]:
    """Every experiment of every module here, by number."""
    found: list[Experiment] = []
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            found += getattr(importlib.import_module(f"tests.proof.{module.name}"), "EXPERIMENTS", ())
    return sorted(found, key=lambda each: each.number)  # within a number as its module has them


def carry_out(experiment: Experiment, lab: Lab, *, runs: int, seed: int) -> tuple[Found, bool]:
    """One experiment, and whether it was interrupted; what it raises is a fault of it."""
    trial = Trial(runs=runs, seed=seed)
    interrupted = False
    try:
        experiment.run(lab, trial)
    except KeyboardInterrupt:
        interrupted = True
    except Exception:
        trial.faults.append(traceback.format_exc(limit=4))
    short_of = (
        f" --runs {trial.done if interrupted else runs}" if interrupted or runs != experiment.runs else ""
    )
    found = Found(
        number=experiment.number,
        runs=trial.done,
        faults=len(trial.faults),
        listed=tuple(_anywhere(fault, lab) for fault in trial.faults[:5]),
        figures=trial.figures,
        seconds=round(time.monotonic() - trial.began, 1),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        seed=seed,
        command=f"python -m tests.proof --seed {seed}{short_of} {experiment.name}",
    )
    return found, interrupted


def _anywhere(fault: str, lab: Lab) -> str:
    """A fault without this machine's folders."""
    return fault.replace(str(lab.folder), "…").replace(str(ROOT), "…")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """0: nothing broke; 1: something did; 130: interrupted."""
    known = experiments()
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(each.name for each in known))
    parser.add_argument(
        "--short", action="store_true", help="a run or two of each that CI can do; nothing is published"
    )
    parser.add_argument("--runs", type=int, help="as many runs of each; published only with --publish")
    parser.add_argument(
        "--publish", action="store_true", help="publish what --runs found, or an interrupted run"
    )
    parser.add_argument(
        "--take",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="run nothing; publish the results that other checkouts kept",
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    given = parser.parse_args()
    if unknown := set(given.names) - {each.name for each in known}:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    if given.short and (given.publish or given.runs):
        parser.error("--short is for CI: it goes with neither --runs nor --publish")
    if given.runs is not None and given.runs < 1:
        parser.error("--runs is 1 at least")
    if given.take:
        for file in given.take:
            for name, kept in json.loads(file.read_text("utf-8")).items():
                keep(KEPT, REPORT, known, name, Found(**kept))
        return 0
    chosen = [each for each in known if not given.names or each.name in given.names]
    failed = False
    signal.signal(signal.SIGTERM, _interrupt)
    with Lab() as lab:
        for experiment in chosen:
            if given.short and experiment.not_in_ci:
                print(
                    f"- {experiment.number:>2} {experiment.name}: left out: {experiment.not_in_ci}",
                    flush=True,
                )
                continue
            runs = given.runs or (experiment.short if given.short else experiment.runs)
            found, interrupted = carry_out(experiment, lab, runs=runs, seed=given.seed)
            failed |= found.faults > 0 or found.runs == 0
            print(table([(experiment, found)]), flush=True)
            whole = not (given.short or given.runs or interrupted)
            if (whole or given.publish) and found.runs:
                keep(KEPT, REPORT, known, experiment.name, found)
            if interrupted:
                return INTERRUPTED
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
