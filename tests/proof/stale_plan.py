"""Promise 5: a plan that was made for another world is refused, and says what moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridrag.failpoints import VARIABLE
from tests.conftest import DIM, EXAMPLE, Project
from tests.support.target import run_sql, tables
from tests.support.traces import snapshot, writes

from .experiment import Experiment, Trial
from .lab import Lab, Torment

APPLY = ("apply", "--auto-approve")
Act = Callable[[Project], object]


def sql(statement: str) -> Act:
    return lambda project: run_sql(project.dsn or "", statement, "SELECT 1")


def elsewhere(statement: str) -> Act:
    """A statement about the database itself, from another one; {} is its name."""

    def change(project: Project) -> None:
        server, _, name = (project.dsn or "").rpartition("/")
        run_sql(f"{server}/tester", statement.format(name), "SELECT 1")

    return change


def replaced(name: str, old: str, new: str) -> Act:
    def change(project: Project) -> None:
        path = project.folder / name
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return change


def registry(backend: str, kind: str) -> Act:
    def change(project: Project) -> None:
        path = project.folder / "state" / "test" / "registry.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"name": "notes", "path": str(project.data), "backend": backend, "backend_type": kind}
        path.write_text(json.dumps({"version": 1, "databases": {"notes": entry}}))

    return change


def _append(path: Path, what: bytes) -> None:
    with path.open("ab") as file:
        file.write(what)


def _record(project: Project) -> None:
    path = project.data / "kv_store_text_chunks.json"
    whole: dict[str, Any] = json.loads(path.read_text("utf-8"))
    next(iter(whole.values()))["tokens"] += 1
    path.write_text(json.dumps(whole, indent=2, ensure_ascii=False), "utf-8")


def _vector(project: Project) -> None:
    dsn = project.dsn or ""
    table = next(name for name in tables(dsn) if name.startswith("lightrag_vdb_entity"))
    run_sql(
        dsn, f"UPDATE {table} SET content_vector = content_vector * '[{','.join(['-1'] * DIM)}]'", "SELECT 1"
    )


def half(project: Project) -> None:
    run = Torment(project, *APPLY, variables={VARIABLE: "migrate.batch_committed=kill@2"})
    assert run.wait(120) == -9, run.said()
    run.kill()


def away(project: Project) -> None:
    """Served by the server, and wanted back in files."""
    project.ok(*APPLY)
    replaced("hybridrag.yaml", "backend: pg", "backend: files")(project)


def back(project: Project) -> None:
    """Served by files, with a kept copy in the server, and wanted there again."""
    away(project)
    project.ok(*APPLY)
    replaced("hybridrag.yaml", "backend: files", "backend: pg")(project)


def fresh(project: Project) -> None:
    """As it was found."""


@dataclass(frozen=True)
class Case:
    """From which state, what moves, and the words of the refusal that name it."""

    state: Act
    change: Act
    says: tuple[str, ...]


FILES, SERVER = "store/notes@json", "store/notes@pg"
OTHER_CONTENT = (f"{FILES}.fingerprint: ",)
OTHER_ROWS = (f"{SERVER}.fingerprint: ",)
EXTRA = "INSERT INTO lightrag_doc_full (workspace, id, content) VALUES ('notes', 'doc-extra', 'x')"
SPEC = ("the spec was changed",)
CASES = {
    "a record": Case(fresh, _record, OTHER_CONTENT),
    "a file's last byte": Case(fresh, lambda p: _append(p.data / "kv_store_full_docs.json", b" "), (*OTHER_CONTENT, f"{FILES}.bytes: ")),
    "a file less": Case(fresh, lambda p: (p.data / "kv_store_llm_response_cache.json").unlink(), (*OTHER_CONTENT, f"{FILES}.records/llm_response_cache: 75 → absent")),
    "the registry": Case(fresh, registry("files", "json"), ('registry/notes.backend: absent → "files"',)),
    "the spec": Case(fresh, replaced("hybridrag.yaml", "environment: test", "environment: test\ndefaults: {thresholds: {file_size: 1MB}}"), SPEC),
    "the embedding": Case(fresh, replaced("hybridrag.yaml", "hash-emb", "other-emb"), SPEC),
    "an extension comes": Case(fresh, sql("CREATE EXTENSION vector"), ("backend/pg.pgvector: absent → ",)),
    "an extension goes": Case(away, sql("DROP EXTENSION vector CASCADE"), ("backend/pg.pgvector: ", f"{SERVER}.dim/lightrag_vdb_chunks_hash_emb_96d: 96 → absent")),
    "the server's database is gone": Case(fresh, elsewhere("DROP DATABASE {} WITH (FORCE)"), ("backend/pg.reachable: true → false", "backend/pg.problem: absent → ")),
    "no logins": Case(fresh, elsewhere("ALTER DATABASE {} ALLOW_CONNECTIONS false"), ("backend/pg.reachable: true → false", "backend/pg.problem: absent → ")),
    "a row comes to the source": Case(away, sql(EXTRA), (*OTHER_ROWS, f"{SERVER}.records/full_docs: 14 → 15")),
    "a row of the source changes": Case(away, sql("UPDATE lightrag_doc_chunks SET content = content || 'x'"), OTHER_ROWS),
    "a row of the source goes": Case(away, sql("DELETE FROM lightrag_llm_cache WHERE ctid = '(0,1)'"), (*OTHER_ROWS, f"{SERVER}.records/llm_response_cache: 75 → 74")),
    "a vector of the source changes": Case(away, _vector, OTHER_ROWS),
    "a table of the source goes": Case(away, sql("DROP TABLE lightrag_doc_status"), (f"{SERVER}.missing: absent → ", f"{SERVER}.records/doc_status: 14 → 0")),
    "a half copy goes": Case(half, sql("DROP SCHEMA hybridrag_ledger CASCADE"), (f'{SERVER}.state: "copying" → absent',)),
    "the kept copy grows": Case(back, sql(EXTRA), (*OTHER_ROWS, f"{SERVER}.records/full_docs: 14 → 15")),
    "the kept copy loses": Case(back, sql("DELETE FROM lightrag_doc_chunks WHERE workspace = 'notes'"), (*OTHER_ROWS, f"{SERVER}.records/text_chunks: ")),
    "the kept files change": Case(away, _record, OTHER_CONTENT),
    "somebody applied it before": Case(fresh, lambda p: p.ok(*APPLY), ("the plan was applied already, by run",)),
}  # fmt: skip
"""Kind of fact, and how the refusal must name it."""


def _run(lab: Lab, trial: Trial) -> None:
    names = trial.rng.sample(list(CASES), len(CASES))
    run_sql(lab.server.dsn("tester"), "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
    while trial.done < trial.runs:
        name = names[trial.done % len(names)]
        with lab.project(EXAMPLE / "archive", dim=DIM) as project:
            _one(lab, trial, project, name, CASES[name])
        trial.done += 1
    run_sql(lab.server.dsn("tester"), "ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()")
    with lab.project(EXAMPLE / "archive", dim=DIM) as project:
        project.ok("plan", "--out", "saved.plan")
        trial.ended(project.run("apply", "saved.plan"), {0}, "nothing moved")
    trial.figures["kinds of change"] = min(trial.runs, len(CASES))


def _one(lab: Lab, trial: Trial, project: Project, name: str, case: Case) -> None:
    case.state(project)
    project.ok("plan", "--out", "saved.plan")
    case.change(project)
    database = (project.dsn or "").rpartition("/")[2]
    open_ = run_sql(
        lab.server.dsn("tester"), f"SELECT 1 FROM pg_database WHERE datname = '{database}' AND datallowconn"
    )
    looked = database if open_ else "tester"
    files, rows = snapshot(project.folder), writes(lab.server, looked)
    done = project.run("apply", "saved.plan", "--allow", "overwrite", "--allow", "replace_kept")
    if trial.ended(done, {5}, name):
        words = " ".join(done.stderr.split())
        stale = () if name == "somebody applied it before" else ("the plan is stale",)
        unsaid = [says for says in (*stale, *case.says) if says.strip() not in words]
        trial.check(not unsaid, f"{name}: it does not say {unsaid}: {words}")
        trial.count("refused")
    trial.check(snapshot(project.folder) == files, f"{name}: a file was changed")
    trial.check(writes(lab.server, looked) == rows, f"{name}: something was written to the server")
    if not open_:  # what takes the project away wants a database to drop
        wanted = "ALTER DATABASE {} ALLOW_CONNECTIONS true" if name == "no logins" else "CREATE DATABASE {}"
        elsewhere(wanted)(project)


EXPERIMENTS = (
    Experiment(
        number=5,
        name="stale-plan",
        promise="a plan that was made for another world is refused, names what moved, and touches nothing",
        tried="`plan --out`, then one change (a record, a byte, a file, the registry, the spec, an extension, the server's database, rows or "
        "tables of source, half copy and kept copy, another apply), then `apply PLAN`: exit 5 and the name of the very fact that moved, no file and no row changed; "
        "with no change it is carried out",
        baseline="Terraform compares only lineage and serial of its own state",
        runs=105,
        short=2,
        run=_run,
    ),
)
