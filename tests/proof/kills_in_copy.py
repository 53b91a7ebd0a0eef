"""Promise 2: a kill never loses or doubles a record."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from tests.conftest import Project, digests
from tests.support.target import content, run_sql

from .experiment import Experiment, Trial
from .lab import Lab, Torment

APPLY = ("apply", "--auto-approve")
BATCH = "migration: {batch: 25}"


def _to_postgres(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(3)
    with lab.project(data, more=BATCH) as project:
        project.ok(*APPLY)
        expected = content(_dsn(project), "notes")
    before = digests(data)
    while trial.done < trial.runs:
        with lab.project(data, more=BATCH) as project:
            kills = _torment(trial, project, lambda project=project: _kept_step(trial, project))
            found = content(_dsn(project), "notes")
            trial.check(found == expected, f"after {kills} kills the target is another (seed {trial.seed})")
            trial.check(digests(project.data) == before, "the source was changed")
        trial.count("migrations")
    trial.figures["records"] = sum(
        found[0] for name, found in expected.items() if name.startswith("lightrag")
    )


def _to_files(lab: Lab, trial: Trial) -> None:
    data = lab.database_of(3)
    with lab.project(data, more=BATCH) as source:
        source.ok(*APPLY)
        expected: dict[str, str] | None = None
        rounded = False
        while trial.done < trial.runs or expected is None:
            _want(source, "files")
            if expected is None:
                source.ok(*APPLY)
                # The first way back may round a float's last place; from then on nothing changes any more.
                expected = published(source) if rounded else None
                rounded = True
            else:
                kills = _torment(trial, source, lambda: None)
                trial.check(published(source) == expected, f"after {kills} kills the files are others")
                trial.count("migrations")
            _want(source, "pg")
            source.ok(*APPLY)


def _torment(trial: Trial, project: Project, look: Any) -> int:
    """Kill `apply` again and again at random moments of its copy, until a run comes to its end."""
    kills = 0
    while True:
        run = Torment(project, *APPLY)
        begun = run.until('"step": "migrate.notes"')
        limit = trial.rng.random() ** 2 * 1.5 if begun and trial.done < trial.runs else 120
        code = run.wait(limit)
        run.kill()
        if code is not None:
            trial.check(code == 0, f"apply ended with {code}: {run.said()}")
            return kills
        kills += 1
        trial.done += 1
        look()


def _kept_step(trial: Trial, project: Project) -> None:
    """What is committed is what the checkpoint says, at any moment."""
    for namespace, table in (("full_docs", "lightrag_doc_full"), ("text_chunks", "lightrag_doc_chunks")):
        there = f"SELECT to_regclass('{table}') IS NOT NULL AND to_regclass('hybridrag_ledger.checkpoint') IS NOT NULL"
        if not run_sql(_dsn(project), there)[0][0]:
            continue
        # One statement, one moment: the killed client's last commit may still be on its way.
        kept = f"SELECT coalesce(sum(records), 0) FROM hybridrag_ledger.checkpoint WHERE namespace = '{namespace}'"
        ((rows, said),) = run_sql(_dsn(project), f"SELECT (SELECT count(*) FROM {table}), ({kept})")
        trial.check(rows == said, f"{table} holds {rows} rows, its checkpoint says {said}")


def _want(project: Project, backend: str) -> None:
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text()
    spec.write_text(
        text.replace("backend: pg", f"backend: {backend}").replace("backend: files", f"backend: {backend}")
    )


def published(project: Project) -> dict[str, str]:
    """Digest by file; of a vector file without the order of its rows, which is the order of rows in the server."""
    found = {
        name: digest for name, digest in digests(project.data).items() if not name.startswith(".hybridrag")
    }
    for path in project.data.glob("vdb_*.json"):
        loaded = json.loads(path.read_text("utf-8"))
        matrix = base64.b64decode(loaded.pop("matrix"))
        width = loaded["embedding_dim"] * 4
        rows = loaded.pop("data")
        together = sorted(
            json.dumps(row, sort_keys=True) + matrix[width * place : width * (place + 1)].hex()
            for place, row in enumerate(rows)
        )
        found[path.name] = hashlib.sha256(json.dumps([loaded, together]).encode()).hexdigest()
    return found


def _dsn(project: Project) -> str:
    assert project.dsn is not None
    return project.dsn


_BASELINE = "the resume logic of a well-known vector migrator, simulated: 207 of 300 crashed runs lost points and reported success"
EXPERIMENTS = (
    Experiment(
        number=2,
        name="kills-to-postgres",
        promise="a kill never loses or doubles a record (JSON to Postgres)",
        tried="SIGKILL of the whole process group at random moments of the copy, again and again until a run ends; then every "
        "row of every table, every index and the ledger equal those of an uninterrupted run; at each kill rows equal the checkpoint",
        baseline=_BASELINE,
        runs=1000,
        short=4,
        run=_to_postgres,
    ),
    Experiment(
        number=2,
        name="kills-to-files",
        promise="a kill never loses or doubles a record (Postgres to JSON)",
        tried="the same the other way round: every published file holds the records of an uninterrupted run, byte for byte",
        baseline=_BASELINE,
        runs=1000,
        short=1,
        run=_to_files,
    ),
)
