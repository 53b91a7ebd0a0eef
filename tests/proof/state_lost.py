"""Promise 15: the state folder may be lost at any time; the places themselves say what serves and what is kept."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Project
from tests.support.places import forget_state
from tests.support.target import run_sql

from .experiment import Experiment, Trial
from .lab import Lab

SLOTS = ("kv", "doc_status", "vector", "graph")
SERVERS = ("pg", "pg2")
ALLOWED = ("--auto-approve", "--allow", "replace_kept", "--allow", "other_data", "--allow", "overwrite")
QUESTIONS = (
    ("plan", "--json"),
    ("status", "--json"),
    ("render", "notes", "--as", "env"),
    ("db", "show", "notes", "--json"),
    ("rollback", "notes", "--dry-run", "--json"),
    ("rollback", "notes", "--discard-new", "--dry-run", "--json"),
    ("retire", "notes", "--now", "--dry-run", "--json"),
)
"""Everything that says what serves, what is kept, and what can be gone back to."""
HISTORY = (
    "last_run",
    "running",
    "latency_ms",
    "detail",
    "details",
    "hint",
    "estimate_s",
    "plan_digest",
    "spec_files",
    "spec_digest",
    "bytes",
    "disk_free",
    "disk_total",
)
"""Keys that tell of runs, of this folder, or of the moment: times, and what a server takes on its disk."""


def _spec(project: Project) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((project.folder / "hybridrag.yaml").read_text("utf-8"))
    return made


def _want(project: Project, backend: Any) -> None:
    spec = _spec(project)
    spec["databases"]["notes"]["backend"] = backend
    (project.folder / "hybridrag.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")


def _somewhere(trial: Trial) -> Any:
    """A backend for all slots, or one for each, on one server at most: LightRAG keeps one pool."""
    if trial.rng.random() < 0.6:
        return trial.rng.choice(("files", *SERVERS))
    server = trial.rng.choice(SERVERS)
    return {slot: trial.rng.choice(("files", server)) for slot in SLOTS}


def _write(trial: Trial, project: Project, dsns: list[str]) -> None:
    """One record more, wherever they lie: in what serves, or in what is kept."""
    if trial.rng.random() < 0.4:
        path = project.data / "kv_store_full_docs.json"
        if path.exists():
            held = json.loads(path.read_text("utf-8"))
            held[f"doc-{trial.rng.random()}"] = {"content": "late", "file_path": "late.md"}
            path.write_text(json.dumps(held, indent=2), "utf-8")
        return
    dsn = trial.rng.choice(dsns)
    (there,) = run_sql(dsn, "SELECT to_regclass('lightrag_doc_full') IS NOT NULL")[0]
    if there:
        run_sql(
            dsn,
            "INSERT INTO lightrag_doc_full (id, workspace, doc_name, content) "
            f"VALUES ('doc-{trial.rng.random()}', 'notes', 'late.md', 'late') RETURNING 1",
        )


def _step(trial: Trial, project: Project, dsns: list[str]) -> str:
    """One event of a history; returns what it was. A command may refuse, but in words."""
    kind = trial.rng.choice(("move", "move", "move", "write", "back", "leave", "retire", "want", "lose"))
    if kind == "move":
        backend = _somewhere(trial)
        _want(project, backend)
        trial.ended(project.run("apply", *ALLOWED), {0, 5}, f"move to {backend}")
        return f"move to {json.dumps(backend)}"
    if kind == "write":
        _write(trial, project, dsns)
    elif kind == "back":
        trial.ended(project.run("rollback", "notes", "--auto-approve"), {0, 4, 5, 6, 7}, "rollback")
    elif kind == "leave":
        trial.ended(
            project.run("rollback", "notes", "--discard-new", "--auto-approve"), {0, 4, 5, 6}, "rollback"
        )
    elif kind == "retire":
        trial.ended(project.run("retire", "notes", "--now", "--confirm", "notes"), {0, 4, 5, 6}, "retire")
    elif kind == "want":
        _want(project, _somewhere(trial))  # a spec that nobody applied yet
    else:
        forget_state(project)
    return kind


def answers(project: Project, home: Path) -> dict[str, Any]:
    """What every question is answered, but for history; `home` is the folder with the data, named alike."""
    found = {}
    for question in QUESTIONS:
        done = project.run(*question)
        out, err = (_named_alike(text, project.folder, home) for text in (done.stdout, done.stderr))
        try:
            value = _without_history(json.loads(out))
        except ValueError:
            value = out
        found[" ".join(question)] = (done.returncode, value, err)
    return found


def _named_alike(text: str, *folders: Path) -> str:
    for folder in folders:
        text = text.replace(str(folder), "HERE")
    return re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?", "TIME", text)


def _without_history(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_history(each)
            for name, each in value.items()
            if name not in HISTORY and not name.startswith("journal/")
        }
    return [_without_history(each) for each in value] if isinstance(value, list) else value


def _compare(trial: Trial, what: str, here: dict[str, Any], there: dict[str, Any]) -> None:
    for question, answer in here.items():
        trial.count("answers compared")
        trial.check(there[question] == answer, f"{what}: {question}: {_differing(answer, there[question])}")


def _differing(one: Any, other: Any, at: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        names = [n for n in {**one, **other} if one.get(n) != other.get(n)]
        return "; ".join(_differing(one.get(n), other.get(n), f"{at}.{n}") for n in names[:4])
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return "; ".join(
            _differing(a, b, f"{at}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b
        )
    return f"{at}: {str(one)[:300]!r} is {str(other)[:300]!r} without the state folder"


def _history(lab: Lab, trial: Trial, project: Project, dsns: list[str]) -> None:
    told = [_step(trial, project, dsns) for _ in range(trial.rng.randint(2, 5))]
    what = f"run {trial.done}: {', '.join(told)}"
    here = answers(project, project.folder)
    served = [each["backend"] for each in json.loads(project.run("status", "--json").stdout)["databases"]]
    trial.count(f"ended on {'+'.join(served) if len(str(served)) < 12 else 'several'}", 1)
    kept = lab.folder / "kept-state"
    shutil.rmtree(kept, ignore_errors=True)
    if (project.folder / "state").exists():
        shutil.copytree(project.folder / "state", kept)
    forget_state(project)
    _compare(trial, f"{what}, state lost", here, answers(project, project.folder))
    for path in project.folder.glob("state"):
        trial.check(not list(path.glob("*/journal.db")), f"{what}: asking made a state folder")
        shutil.rmtree(path)
    if kept.exists():
        shutil.copytree(kept, project.folder / "state")
    other = _clone(lab, project)
    _compare(trial, f"{what}, another clone", here, answers(other, project.folder))
    shutil.rmtree(other.folder)


def _clone(lab: Lab, project: Project) -> Project:
    """The same spec in another folder, which names the same data and has no state."""
    folder = lab.folder / "clone"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("hybridrag.yaml", ".env", "embedding.py"):
        shutil.copy(project.folder / name, folder)
    other = Project(folder, project.data, project.dsn)
    spec = _spec(other)
    spec["databases"]["notes"]["path"] = str(project.data)
    (folder / "hybridrag.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    return other


def _run(lab: Lab, trial: Trial) -> None:
    tiny = _tiny(lab.folder / "tiny")
    while trial.done < trial.runs:
        with lab.project(tiny, dim=8) as project, lab.project(tiny, dim=8) as other:
            spec = _spec(project)
            spec["backends"]["pg2"] = _spec(other)["backends"]["pg"]
            (project.folder / "hybridrag.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
            _history(lab, trial, project, [project.dsn or "", other.dsn or ""])
        trial.done += 1


def _tiny(folder: Path) -> Path:
    """A database that moves in a second."""
    from tests.support import big_database

    big_database.build(folder, mb=0.02, dim=8)
    return folder


EXPERIMENTS = (
    Experiment(
        number=15,
        name="state-is-lost",
        promise="the state folder may be lost at any time",
        tried="random histories (moves of all slots or some between files and two Postgres databases, writes to either side, "
        "rollbacks, retirements, specs that nobody applied, state folders that were lost before); then the state folder is removed, "
        "and the spec is used from another clone without one: plan, status, render, db show, both kinds of rollback and retire must "
        "answer the same but for history, and asking must make no state folder",
        baseline="Terraform without its state file plans to make everything anew",
        runs=200,
        short=2,
        run=_run,
    ),
)
