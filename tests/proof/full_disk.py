"""Promise 10: a full or failing disk is told in words, and the old version stays whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hybridrag.failpoints import VARIABLE, Point
from tests.conftest import DIM, EXAMPLE, Project, digests
from tests.support.target import content

from .experiment import Experiment, Trial
from .lab import Lab

APPLY = ("apply", "--auto-approve")
POINTS = {
    Point.JOURNAL_BEFORE: 30,
    Point.JOURNAL_AFTER: 30,
    Point.REGISTRY_BEFORE: 1,
    Point.REGISTRY_AFTER: 1,
    Point.BATCH_SENT: 10,
    Point.BATCH_COMMITTED: 10,
}
"""Where the disk fails, and up to which passing."""


def _source(project: Project) -> dict[str, str]:
    return {name: digest for name, digest in digests(project.data).items() if not name.startswith(".")}


def _failpoints(lab: Lab, trial: Trial) -> None:
    with lab.project(EXAMPLE / "archive", dim=DIM) as project:
        project.ok(*APPLY)
        expected = content(project.dsn or "", "notes")
    chosen = [(point, action) for point in POINTS for action in ("full", "error")]
    trial.rng.shuffle(chosen)
    while trial.done < trial.runs:
        point, action = chosen[trial.done % len(chosen)]
        armed = f"{point.value}={action}@{trial.rng.randint(1, POINTS[point])}"
        with lab.project(EXAMPLE / "archive", dim=DIM, more="migration: {batch: 50}") as project:
            before = _source(project)
            done = project.run(*APPLY, **{VARIABLE: armed})
            trial.ended(done, {0, 4}, armed)
            trial.count("refused in words" if done.returncode == 4 else "passed the point too seldom")
            trial.check(done.returncode == 0 or "→ " in done.stderr, f"{armed}: no next command")
            # Whatever serves now can be read, and says so without an apply in between.
            trial.ended(project.run("status"), {0}, f"{armed}: status")
            trial.ended(project.run(*APPLY), {0}, f"{armed}: the next apply")
            trial.ended(project.run("plan", "--detailed-exitcode"), {0}, f"{armed}: the plan after it")
            found = content(project.dsn or "", "notes")
            trial.check(found == expected, f"{armed}: another target")
            trial.check(_source(project) == before, f"{armed}: the source was changed")
        trial.done += 1


@contextlib.contextmanager
def _volume(mb: int) -> Iterator[Path]:
    """A file system of so many MB in memory; only root may mount one."""
    place = Path(tempfile.mkdtemp(prefix="hybridrag-volume-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mb}m", "hybridrag", str(place)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        place.rmdir()
        raise PermissionError(f"a small volume cannot be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def _fill(volume: Path, leave: int) -> None:
    """All but so many bytes, as pages of memory go."""
    with (volume / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(volume).free - leave))


def _really(lab: Lab, trial: Trial) -> None:
    """The state folder, or the target's JSON files, on a volume that leaves random room."""
    while trial.done < trial.runs:
        kind = ("state", "files")[trial.done % 2]
        with lab.project(EXAMPLE / "archive", dim=DIM) as project, _volume(96) as volume:
            spec = project.folder / "hybridrag.yaml"
            if kind == "state":
                spec.write_text(spec.read_text() + f"state: {{path: {volume}/state}}\n")
                leave = int(trial.rng.choice([0, 8192, 40_000, 100_000, 400_000, 40_000_000]))
            else:
                shutil.copytree(project.data, volume / "notes")
                spec.write_text(spec.read_text().replace("./notes", f"{volume}/notes"))
                project.ok(*APPLY)
                spec.write_text(spec.read_text().replace("backend: pg", "backend: files"))
                leave = int(trial.rng.uniform(0, 1.6e6))
            before = digests(volume / "notes") if kind == "files" else _source(project)
            what = f"{kind}, {leave} bytes left"
            _fill(volume, leave)
            done = project.run(*APPLY)
            trial.ended(done, {0, 4}, what)
            trial.count("refused in words" if done.returncode == 4 else "had room enough")
            if done.returncode == 4:
                now = digests(volume / "notes") if kind == "files" else _source(project)
                kept = {name: digest for name, digest in now.items() if not name.startswith(".hybridrag")}
                trial.check(kept.items() <= before.items() and len(kept) >= 12, f"{what}: files were changed")
                trial.ended(project.run("status"), {0}, f"{what}: status while it is full")
            (volume / "filler").unlink()
            trial.ended(project.run(*APPLY), {0}, f"{what}: the next apply")
            trial.ended(project.run("verify", "notes"), {0}, f"{what}: verify")
            trial.ended(project.run("plan", "--detailed-exitcode"), {0}, f"{what}: the plan after it")
        trial.done += 1


EXPERIMENTS = (
    Experiment(
        number=10,
        name="failing-disk",
        promise="a disk that fails at any write of ours is told in words, and the next apply goes on",
        tried="ENOSPC or EIO at the n-th commit of the journal, at the registry's replacement, at a batch: exit 4 with the next command, "
        "`status` answers, the next apply ends with the target and the source of an undisturbed run",
        baseline="—",
        runs=240,
        short=2,
        run=_failpoints,
    ),
    Experiment(
        number=10,
        name="full-disk",
        promise="a volume that is full costs nothing but the room it lacks",
        tried="the state folder, or the target's JSON files, on a small volume with a random number of bytes left: exit 4 in words or "
        "done, every old file as it was; with room again apply ends and verifies",
        baseline="—",
        runs=80,
        short=2,
        run=_really,
    ),
)
