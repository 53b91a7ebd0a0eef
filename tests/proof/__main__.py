"""`python -m tests.proof [--short] [--seed N] [NAME…]`: run experiments, print their table; at full length publish it."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import pkgutil
import random
import sys
import time
import traceback
from pathlib import Path

import tests.proof as package

from .experiment import Experiment, Found, Trial
from .lab import Lab
from .report import publish, table

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks" / "results" / "proof.json"
REPORT = ROOT / "docs" / "reliability.md"


def experiments() -> list[Experiment]:
    """Every experiment of every module here, by number."""
    found: list[Experiment] = []
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in ("__main__", "experiment", "lab", "report"):
            found += importlib.import_module(f"tests.proof.{module.name}").EXPERIMENTS
    return sorted(found, key=lambda each: (each.number, each.name))


def carry_out(experiment: Experiment, lab: Lab, *, runs: int, seed: int) -> Found:
    """One experiment; what it raises is a fault of it."""
    trial = Trial(runs=runs, seed=seed)
    try:
        experiment.run(lab, trial)
    except Exception:
        trial.faults.append(traceback.format_exc(limit=4))
    return Found(
        number=experiment.number,
        runs=trial.done,
        faults=len(trial.faults),
        listed=tuple(trial.faults[:5]),
        figures=trial.figures,
        seconds=round(time.monotonic() - trial.began, 1),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        seed=seed,
        command=f"python -m tests.proof --seed {seed} {experiment.name}",
    )


def main() -> int:
    known = experiments()
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(each.name for each in known))
    parser.add_argument("--short", action="store_true", help="a few runs of each; nothing is published")
    parser.add_argument("--runs", type=int, help="as many runs of each; nothing is published")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    given = parser.parse_args()
    if unknown := set(given.names) - {each.name for each in known}:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    chosen = [each for each in known if not given.names or each.name in given.names]
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    failed = False
    with Lab() as lab:
        for experiment in chosen:
            runs = given.runs or (experiment.short if given.short else experiment.runs)
            found = carry_out(experiment, lab, runs=runs, seed=given.seed)
            failed |= found.faults > 0 or found.runs < min(runs, 1)
            print(table([(experiment, found)]), flush=True)
            if not (given.short or given.runs):
                kept[experiment.name] = found.as_dict()
                KEPT.parent.mkdir(parents=True, exist_ok=True)
                KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
                publish(REPORT, known, kept)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
