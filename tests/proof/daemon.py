"""The daemon feeds a database while it is moved to and fro, and while its server dies: everything is in, once."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator

from tests.conftest import DIM, EXAMPLE
from tests.support.make_database import document
from tests.support.model_server import ModelServer
from tests.support.target import run_sql
from tests.support.watching import Watched, make_watched, until

from .experiment import Experiment, Trial
from .lab import Lab

APPLY = ("apply", "--auto-approve", "--allow", "replace_kept")


@contextlib.contextmanager
def _fed(lab: Lab) -> Iterator[Watched]:
    """The example, fed by LightRAG itself with a scripted model."""
    with ModelServer(DIM) as models, lab.project(EXAMPLE / "archive", dim=DIM) as project:
        watched = make_watched(project, lab.folder / f"control-{project.folder.name}", models=models.url)
        try:
            yield watched
        finally:
            watched.end()


def _documents(watched: Watched) -> list[tuple[str, str]]:
    """(name, status) of every document of the source, on whatever serves."""
    look = watched.look()
    if look is not None and look.activity is not None and look.activity.backend == "pg":
        rows = run_sql(watched.project.dsn or "", "SELECT file_path, status FROM lightrag_doc_status")
    else:
        held = json.loads((watched.project.data / "kv_store_doc_status.json").read_text("utf-8"))
        rows = [(row["file_path"], row["status"]) for row in held.values()]
    return sorted((name, status) for name, status in rows if name.endswith(".md"))


def _all_in(watched: Watched, names: list[str]) -> bool:
    with contextlib.suppress(Exception):
        return watched.is_in("idle") and _documents(watched) == sorted((name, "processed") for name in names)
    return False


def _moves(lab: Lab, trial: Trial) -> None:
    names: list[str] = []

    def put(watched: Watched) -> None:
        names.append(f"doc-{len(names):04d}.md")
        watched.put(names[-1], document(9000 + len(names), random.Random(len(names)), 0))

    with _fed(lab) as watched, watched.daemon():
        spec = watched.project.folder / "hybridrag.yaml"
        while trial.done < trial.runs:
            here, there = ("files", "pg") if trial.done % 2 == 0 else ("pg", "files")
            spec.write_text(spec.read_text().replace(f"backend: {here}", f"backend: {there}"))
            put(watched)
            time.sleep(trial.rng.uniform(0, 1.5))
            during = threading.Timer(trial.rng.uniform(0, 3), put, [watched])
            during.start()
            done = watched.run(*APPLY)
            during.join()
            trial.check(
                done.returncode == 0,
                f"apply to {there} ended with {done.returncode}: {done.stdout}{done.stderr}",
            )
            trial.done += 1
        with contextlib.suppress(AssertionError):
            until(lambda: _all_in(watched, names), within=180)
        trial.check(
            _all_in(watched, names), f"of {len(names)} documents there are {_documents(watched)[:5]} …"
        )
        trial.check(not watched.events("failed"), str(watched.events("failed")[:2]))
        trial.figures["documents, each in once"] = len(names)


def _restarts(lab: Lab, trial: Trial) -> None:
    names: list[str] = []
    with _fed(lab) as watched:
        spec = watched.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text().replace("backend: files", "backend: pg"))
        watched.ok(*APPLY)
        with watched.daemon():
            while trial.done < trial.runs:
                for _ in range(2):
                    names.append(f"doc-{len(names):04d}.md")
                    watched.put(names[-1], document(9500 + len(names), random.Random(len(names)), 0))
                time.sleep(trial.rng.uniform(0.5, 4))
                lab.restart(kill=trial.done % 2 == 1)
                trial.done += 1
            with contextlib.suppress(AssertionError):
                until(lambda: _all_in(watched, names), within=240)
            trial.check(_all_in(watched, names), f"of {len(names)} documents there are {_documents(watched)}")
            vectors = run_sql(
                watched.project.dsn or "",
                "SELECT count(*) FROM lightrag_doc_chunks c WHERE NOT EXISTS (SELECT 1 FROM lightrag_vdb_chunks_hash_emb_96d v "
                "WHERE v.id = c.id AND v.workspace = c.workspace)",
            )
            trial.check(vectors == [(0,)], f"{vectors[0][0]} chunks are without their vector")
            trial.figures["documents, each in once"] = len(names)


EXPERIMENTS = (
    Experiment(
        number=13,
        name="moved-while-fed",
        promise="a database that is fed all day can be moved at any moment",
        tried="the daemon ingests with LightRAG while `apply` moves the database to Postgres and back at random moments, with a document "
        "before and one during each move; at the end every document is there, processed, once",
        baseline="LightRAG: moving data between storages is not supported",
        runs=100,
        short=0,
        run=_moves,
        not_in_ci="it runs LightRAG for minutes; tests/integration/test_watch_lightrag does a few moves",
    ),
    Experiment(
        number=14,
        name="server-restarts",
        promise="a lost server costs the daemon time, never a document",
        tried="Postgres is restarted, every second time by SIGKILL, while the daemon ingests with LightRAG; at the end every document is "
        "there, processed, once, and every chunk has its vector",
        baseline="—",
        runs=10,
        short=0,
        run=_restarts,
        not_in_ci="it runs LightRAG for minutes; tests/integration/test_watch waits for a server that is down",
    ),
)
