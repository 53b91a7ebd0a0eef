"""Would the tests notice? A mutation check of the rooms that decide, remember and compare.

mutmut changes one small thing in a copy of a function and runs the tests that reach it; a change that none of them
notices has survived. Run as `python -m tests.support.mutation` (`make mutants`) from the project's folder: everything
happens in a copy, `.mutants/`, and all mutants share one Postgres.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT, clean_environment, running_server

COPY = ROOT / ".mutants"
ROOMS = ("planner", "journal", "migrate")
FEW = "hybridrag.planner.*kept_by*"
"""mutmut makes all mutants before it tries any, but it wants some to try."""
NOTICED = ("killed", "timeout", "segfault", "suspicious")

HEAD = """\
# Would the tests notice?

Written by `make mutants`, never by hand. [mutmut](https://mutmut.readthedocs.io) changes one small thing in a function (a comparison, a number, a text, an
argument) and runs the fast tests that reach it. One that no fast test reaches counts as not noticed.
Some change nothing that anybody could see, so 100 % is not to be had. A random sample of each room is tried: a score of 150 is good to
about ±6 points, one of 30 to about ±13.

"""
AGAIN = """
Tests were written for what had survived in this very sample, so the score flatters: another seed tells more.
"""


def make_copy(folder: Path) -> None:
    """An empty project around links to ours: mutmut copies what it changes, and wants the sources in `src`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src").symlink_to(ROOT / "reconciler")
    for name in ("tests", "examples", "schemas"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "mutants" / "src").mkdir(parents=True)  # Python forgets a path that is not there when it starts


def mutmut(environment: Mapping[str, str], *argv: str, quiet: bool = False) -> str:
    """One command of mutmut in the copy; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *argv],
        cwd=COPY,
        env=dict(environment),
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=True,
    )
    return done.stdout or ""


def verdicts(environment: Mapping[str, str]) -> dict[str, str]:
    """Every mutant by its name, and what became of it."""
    lines = mutmut(environment, "results", "--all", "true", quiet=True).splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if "__mutmut_" in line)


def sample(names: Sequence[str], size: int, seed: int) -> list[str]:
    """Some mutants of each room, the same ones for the same seed; all where `size` is 0."""
    chosen: list[str] = []
    for room in ROOMS:
        there = sorted(name for name in names if name.startswith(f"hybridrag.{room}."))
        chosen += random.Random(seed).sample(there, min(size, len(there))) if size else there
    return chosen


def table(tried: Mapping[str, str], all_names: Sequence[str]) -> str:
    """The score of each room as Markdown."""
    text = "| room | mutants | sample | killed | timeouts | survived | not reached | score |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for room in (*ROOMS, ""):
        found = Counter(verdict for name, verdict in tried.items() if name.startswith(f"hybridrag.{room}"))
        noticed = sum(found[verdict] for verdict in NOTICED)
        cells = [
            room or "all",
            sum(name.startswith(f"hybridrag.{room}") for name in all_names),
            found.total(),
            noticed - found["timeout"],
            found["timeout"],
            found["survived"],
            found["no tests"],
            f"**{noticed / max(1, found.total()):.0%}**",
        ]
        text += "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |\n"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Change the code a little, and count what no test notices.")
    parser.add_argument("--sample", type=int, default=150, help="mutants of each room; 0: all (many hours)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed takes the same sample")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tried at the same time")
    parser.add_argument(
        "--again", action="store_true", help="with the copy that is there: try what was not noticed once more"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the report there")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server goes with us
    if not given.again:
        make_copy(COPY)
    mutants = COPY / "mutants"
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        # Processes that tests start get the mutant, too. CI: hypothesis tries the same examples every time.
        path = os.pathsep.join(map(str, (mutants / "src", mutants)))
        environment = clean_environment(
            HYBRIDRAG_TEST_SERVER=server.dsn("tester"),
            PYTHONPATH=path,
            CI="1",
        )
        jobs = ("--max-children", str(given.jobs))
        if not given.again:
            mutmut(environment, "run", *jobs, FEW)
        known = verdicts(environment)
        chosen = sample(list(known), given.sample, given.seed)
        open_ones = [name for name in chosen if known[name] not in NOTICED]
        if open_ones:
            mutmut(environment, "run", *jobs, *open_ones)
            known = verdicts(environment)
    tried = {name: known[name] for name in chosen}
    score = table(tried, list(known))
    for name, verdict in tried.items():
        if verdict not in NOTICED:
            print(f"{verdict}: {name}")
    print(f"\n{score}\nLook at one: cd {COPY.name} && mutmut show NAME")
    if given.write:
        command = f"python -m tests.support.mutation --sample {given.sample} --seed {given.seed}"
        command += " --again" if given.again else ""
        tail = f"\n{time.strftime('%Y-%m-%d')}, `{command}`.\n" + (AGAIN if given.again else "")
        given.write.write_text(HEAD + score + tail, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
