"""Promise 4: looking writes nothing, in whatever state the world is."""

from __future__ import annotations

from collections.abc import Callable

from hybridrag.failpoints import VARIABLE
from tests.conftest import DIM, EXAMPLE, Project
from tests.support.target import run_sql
from tests.support.traces import snapshot, writes

from .experiment import Experiment, Trial
from .lab import Lab, Torment

APPLY = ("apply", "--auto-approve")
LOOKS = (
    ("validate",),
    ("plan",),
    ("plan", "--json"),
    ("plan", "--detailed-exitcode", "--target", "notes"),
    ("apply", "--json"),
    ("status",),
    ("status", "notes", "--json"),
    ("health",),
    ("health", "--json"),
    ("verify", "notes"),
    ("verify", "notes", "--json"),
    ("drift",),
    ("repair", "notes", "--dry-run"),
    ("backend", "status"),
    ("backend", "status", "notes", "--json", "--verbose"),
    ("db", "list"),
    ("db", "show", "notes"),
    ("watch", "status"),
    ("watch", "status", "notes", "--json"),
    ("render", "notes"),
    ("render", "notes", "--as", "compose"),
    ("render", "notes", "--as", "systemd"),
    ("rollback", "notes", "--dry-run"),
    ("rollback", "notes", "--discard-new", "--dry-run"),
    ("migrate", "notes", "--to", "pg", "--dry-run"),
    ("migrate", "notes", "--to", "files", "--dry-run"),
    ("retire", "notes", "--dry-run"),
    ("query", "notes", "lighthouse", "--context-only"),
    ("history",),
    ("history", "--json"),
    ("unlock",),
    ("unlock", "--json"),
)
CODES = range(10)
"""Every one that is documented: in some states there is nothing to verify, or to go back to."""


def _want(project: Project, backend: str) -> None:
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text().replace("backend: pg", f"backend: {backend}"))


def _killed(project: Project, point: str) -> None:
    run = Torment(project, *APPLY, variables={VARIABLE: f"{point}=kill"})
    assert run.wait(120) == -9, run.said()
    run.kill()


def _kept(project: Project) -> None:
    project.ok(*APPLY)
    _want(project, "files")
    project.ok(*APPLY)


STATES: dict[str, Callable[[Project], object]] = {
    "nothing there": lambda project: None,
    "half copied": lambda project: _killed(project, "migrate.batch_committed"),
    "switched": lambda project: project.ok(*APPLY),
    "copied, not verified": lambda project: _killed(project, "migrate.copied"),
    "marked, not switched": lambda project: _killed(project, "switch.marked"),
    "kept in the server": _kept,
}


def _run(lab: Lab, trial: Trial) -> None:
    each = max(1, trial.runs // len(STATES))
    # The server's own housekeeping writes whenever it likes.
    run_sql(lab.server.dsn("tester"), "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
    for state, make in STATES.items():
        with lab.project(EXAMPLE / "archive", dim=DIM, more="migration: {batch: 25}") as project:
            database = (project.dsn or "").rpartition("/")[2]
            for name in ("home", "tmp"):
                (project.folder / name).mkdir()
            places = {"HOME": str(project.folder / "home"), "TMPDIR": str(project.folder / "tmp")}
            make(project)
            looks = [*LOOKS * (each // len(LOOKS)), *trial.rng.sample(LOOKS, each % len(LOOKS))]
            for look in looks:
                files, rows = snapshot(project.folder), writes(lab.server, database)
                done = project.run(*look, **places)
                what = f"{state}: hybridrag {' '.join(look)}"
                trial.ended(done, CODES, what)
                now = snapshot(project.folder)
                changed = sorted(name for name in {*files, *now} if files.get(name) != now.get(name))
                if look[0] == "query":  # LightRAG is given a temporary folder, which comes and goes
                    changed = [name for name in changed if name != "tmp"]
                trial.check(not changed, f"{what}: changed {changed}")
                trial.check(writes(lab.server, database) == rows, f"{what}: wrote to the server")
                trial.done += 1
    run_sql(lab.server.dsn("tester"), "ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()")
    trial.figures |= {"commands": len(LOOKS), "states": len(STATES)}


EXPERIMENTS = (
    Experiment(
        number=4,
        name="looking-writes-nothing",
        promise="looking changes nothing: no file, no row, no transaction number",
        tried="every command that only looks, in six states (nothing there, half copied, copied, marked, switched, kept), between two "
        "looks at content, times and inodes of every file (home and temporary folder too), the server's counters of rows and its "
        "next transaction number",
        baseline="tools whose dry run wrote: Compose `up --dry-run`, Argo CD's server-side dry run, LightRAG's own graph migration tool",
        runs=360,
        short=6,
        run=_run,
    ),
)
