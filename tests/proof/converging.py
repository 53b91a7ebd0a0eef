"""Promise 6: whatever spec comes after whichever, and whatever is killed in between, it converges."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from tests.conftest import Project
from tests.support.target import content, run_sql
from tests.support.traces import writes

from .experiment import Experiment, Trial
from .kills_in_copy import published
from .lab import Lab, Torment

ALLOWED = ("--allow", "replace_kept")
SLOTS = ("kv", "doc_status", "vector", "graph")
PLACES = ("files", "pg", "pg2")
A_LIFE = 6
"""Specs one after the other on one database, before it is brought back to files and compared."""


def _edit(project: Project, database: str = "notes", **more: Any) -> dict[str, Any]:
    spec = project.folder / "hybridrag.yaml"
    wanted: dict[str, Any] = yaml.safe_load(spec.read_text("utf-8"))
    wanted["databases"][database] |= more
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), "utf-8")
    return wanted


@contextlib.contextmanager
def _world(lab: Lab, data: Path) -> Iterator[tuple[Project, list[str]]]:
    """A project with two Postgres databases, in each of which a neighbour keeps its own rows; their DSNs."""
    with lab.project(data) as project, lab.project(data) as other:
        dsns = [project.dsn or "", other.dsn or ""]
        # `other` is only there for its database, and to be the neighbour in both.
        spec = other.folder / "hybridrag.yaml"
        wanted = _edit(other, workspace="neighbour")
        mine = yaml.safe_load((project.folder / "hybridrag.yaml").read_text("utf-8"))
        for number, backend in enumerate((mine["backends"]["pg"], wanted["backends"]["pg"])):
            wanted["environment"] = f"neighbour-{number}"
            spec.write_text(
                yaml.safe_dump({**wanted, "backends": {"pg": backend, "files": {"type": "json"}}})
            )
            other.ok("apply", "--auto-approve")
        mine["backends"]["pg2"] = wanted["backends"]["pg"]
        (project.folder / "hybridrag.yaml").write_text(yaml.safe_dump(mine, sort_keys=False), "utf-8")
        yield project, dsns


def _neighbours(dsns: list[str]) -> list[dict[str, Any]]:
    kept = ("indexes", "ledger", "checkpoints")
    return [{k: v for k, v in content(dsn, "neighbour").items() if k not in kept} for dsn in dsns]


def _records(project: Project) -> dict[str, Any]:
    """What the files hold, without the order of records, nodes and edges, which is the order of rows in a server."""
    path = project.data / "graph_chunk_entity_relation.graphml"
    space = "{http://graphml.graphdrawing.org/xmlns}"
    root = ElementTree.parse(path).getroot()  # noqa: S314 - our own file
    names = {key.get("id"): key.get("attr.name") for key in root.iter(f"{space}key")}
    graph: dict[str, Any] = {}
    for kind in ("node", "edge"):
        for each in root.iter(f"{space}{kind}"):
            ends = sorted((each.get("source", ""), each.get("target", "")))
            fields = sorted((str(names[data.get("key")]), data.text) for data in each)
            graph[f"{kind} {each.get('id') if kind == 'node' else ends}"] = fields
    keyed = {each.name: json.loads(each.read_text("utf-8")) for each in project.data.glob("kv_store_*.json")}
    return {**published(project), **keyed, path.name: graph}


def _random_spec(trial: Trial, project: Project) -> str:
    """Where each slot shall be, and how it gets there."""
    rng = trial.rng
    backend: Any = rng.choice(PLACES)
    if rng.random() < 0.6:
        server = rng.choice(PLACES[1:])  # LightRAG keeps one pool, so one database may not be in two of them
        backend = {slot: rng.choice(["files", server]) for slot in SLOTS}
    migration = {"batch": rng.choice([7, 40, 1000]), "on_bad_record": rng.choice(["fail", "quarantine"])}
    _edit(project, backend=backend, migration=migration, lifecycle={"keep_source": rng.choice(["1s", "7d"])})
    return json.dumps([backend, migration])


def _converge(trial: Trial, project: Project, what: str, kills: int) -> None:
    lanes = str(trial.rng.choice([1, 2, 6]))
    apply = ("apply", "--auto-approve", *ALLOWED, "--parallelism", lanes)
    for _ in range(kills):
        run = Torment(project, *apply)
        run.until('"step_started"', 60)
        code = run.wait(trial.rng.random() ** 2 * 4)
        run.kill()
        trial.count("kills", code is None)
        trial.check(code in (None, 0), f"{what}: ended with {code}: {run.said()}")
        trial.ended(project.run("status"), {0}, f"{what}: status after a kill")
    trial.ended(project.run(*apply), {0}, f"{what}: apply")
    trial.ended(project.run("plan", "--detailed-exitcode"), {0}, f"{what}: something is left to do")


def _again(lab: Lab, trial: Trial, project: Project, dsns: list[str], what: str) -> None:
    """Another apply does nothing."""
    names = [dsn.rpartition("/")[2] for dsn in dsns]
    before = [writes(lab.server, name) for name in names], published(project)
    trial.ended(project.run("apply", "--auto-approve"), {0}, f"{what}: apply again")
    now = [writes(lab.server, name) for name in names], published(project)
    trial.check(now == before, f"{what}: applying again wrote something")


def _run(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(1)
    run_sql(lab.server.dsn("tester"), "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
    with _world(lab, data) as (project, dsns):
        expected: dict[str, Any] = {}
        for place in ("pg", "files", "pg", "files"):
            # The first way back may round a float's last place; from then on nothing changes any more.
            _edit(project, backend=place)
            project.ok("apply", "--auto-approve", *ALLOWED)
        expected = _records(project)
        original = json.loads((data / "kv_store_text_chunks.json").read_text("utf-8"))
        neighbours = _neighbours(dsns)
        while trial.done < trial.runs:
            what = f"run {trial.done}: {_random_spec(trial, project)}"
            _converge(trial, project, what, trial.rng.choice([0, 1, 1, 3]))
            _again(lab, trial, project, dsns, what)
            trial.check(_neighbours(dsns) == neighbours, f"{what}: a neighbour's rows changed")
            trial.done += 1
            if trial.done % A_LIFE == 0 or trial.done == trial.runs:
                _edit(project, backend="files")
                _converge(trial, project, f"{what}, then files", 0)
                now = _records(project)
                differ = sorted(n for n in {*expected, *now} if now.get(n) != expected.get(n))
                trial.check(not differ, f"{what}: back in files, these differ: {differ}")
                chunks = json.loads((project.data / "kv_store_text_chunks.json").read_text("utf-8"))
                same = {k: v["content"] for k, v in chunks.items()} == {
                    k: v["content"] for k, v in original.items()
                }
                trial.check(same, f"{what}: chunks are others than in the original")
                trial.count("compared with the original")
    run_sql(lab.server.dsn("tester"), "ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()")


EXPERIMENTS = (
    Experiment(
        number=6,
        name="converges",
        promise="it converges, whatever spec comes after whichever",
        tried="random specs one after the other on one database (each slot in files or one of two Postgres databases, batch, lanes, "
        "on_bad_record, keep_source), killed at random moments in between: after the last apply the plan is empty, another apply writes "
        "nothing, back in files every record is the original's, and a neighbour's rows are what they were",
        baseline="—",
        runs=240,
        short=0,
        run=_run,
        not_in_ci="one run takes a minute; tests/e2e/test_directions moves to and fro, tests/integration/test_kills kills",
    ),
)
