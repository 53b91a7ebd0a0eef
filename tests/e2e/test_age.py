"""A graph in Apache AGE, as a user types it: there, on to plain tables, back to files, killed on the way, refused in words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import EXAMPLE, Project, Server, clean_environment, make_project
from tests.e2e.test_directions import EQUAL, apply, published, registry, want
from tests.integration.test_lightrag_answers import MODES, QUESTIONS, TOP_K, both, same, search_exactly
from tests.support.target import run_sql

NODES = 'notes_chunk_entity_relation."base"'
ALL_BUT_GRAPH = {"kv": "pg_age", "doc_status": "pg_age", "vector": "pg_age"}


@pytest.fixture
def with_age(tmp_path: Path, age_server: Server, age_database: str) -> Project:
    """The example, wanted with its graph in AGE; "pg" and "pg_age" are one database of one server."""
    project = make_project(tmp_path / "project", age_server, age_database, EXAMPLE / "archive")
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["backends"]["pg_age"] = {**wanted["backends"]["pg"], "graph_storage": "PGGraphStorage"}
    wanted["databases"]["notes"]["backend"] = "pg_age"
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    return project


@pytest.mark.slow
async def test_lightrag_answers_from_age_as_from_files(with_age: Project, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(with_age.folder, twin)
    spec = twin / "hybridrag.yaml"  # another environment: it has nothing to do with where this one moves
    spec.write_text(spec.read_text("utf-8").replace("environment: test", "environment: twin"), "utf-8")
    await search_exactly(with_age)
    with_age.ok("apply", "--auto-approve")
    assert EQUAL in with_age.ok("verify", "notes")
    task = {"questions": QUESTIONS[:6], "modes": MODES, "top_k": TOP_K}
    source, target = both("ask", twin, with_age.folder, **task)
    assert same(source["answers"], target["answers"]) == []
    assert any(answer["entities"] for answer in target["answers"].values() if answer)


@pytest.mark.long
def test_the_graph_alone_from_age_to_tables_and_everything_back_to_files(with_age: Project) -> None:
    """Two names of one database: only the graph moves; what would be copied onto itself is refused."""
    before = published(with_age)
    apply(with_age)
    assert with_age.dsn
    assert registry(with_age)["backend_config"]["graph_storage"] == "PGGraphStorage"
    want(with_age, "pg")
    refused = with_age.run("plan")
    said = " ".join(refused.stderr.split())
    assert refused.returncode == 5, said
    assert 'backends "pg_age" and "pg" are one place for the kv, doc_status and vector slots' in said
    assert "{kv: pg_age, doc_status: pg_age, vector: pg_age, graph: pg}" in said
    assert with_age.run("apply", "--auto-approve").returncode == 5
    want(with_age, {**ALL_BUT_GRAPH, "graph": "pg"})
    said = with_age.ok("plan")
    assert "104 records" in said, said
    assert EQUAL in apply(with_age)
    (nodes,) = run_sql(with_age.dsn, "SELECT count(*) FROM lightrag_graph_nodes")
    assert nodes == (20,)
    assert run_sql(with_age.dsn, f"SELECT count(*) FROM {NODES}") == [(20,)], "the source keeps what it has"
    assert {slot: place["backend"] for slot, place in registry(with_age)["slots"].items()} == {
        **ALL_BUT_GRAPH,
        "graph": "pg",
    }
    assert EQUAL in with_age.ok("verify", "notes")
    with_age.ok("status")
    want(with_age, "files")
    assert EQUAL in apply(with_age)
    assert published(with_age).keys() == before.keys()


@pytest.mark.slow
def test_moved_to_age_and_rolled_back(with_age: Project) -> None:
    """The graph goes from tables to AGE in the same database, back, and what is left in AGE can be retired."""
    want(with_age, "pg")
    apply(with_age)
    want(with_age, {"kv": "pg", "doc_status": "pg", "vector": "pg", "graph": "pg_age"})
    assert EQUAL in apply(with_age)
    assert with_age.dsn
    assert registry(with_age)["slots"]["graph"]["backend"] == "pg_age"
    assert "healthy" in with_age.ok("status")
    with_age.ok("rollback", "notes", "--auto-approve")
    assert registry(with_age)["backend"] == "pg"
    with_age.ok("retire", "notes", "--now", "--confirm", "notes")
    assert run_sql(with_age.dsn, f"SELECT count(*) FROM {NODES}") == [(0,)]
    assert run_sql(with_age.dsn, "SELECT count(*) FROM lightrag_graph_nodes") == [(20,)]
    assert "healthy" in with_age.ok("status")


@pytest.mark.slow
def test_a_kill_while_the_graph_is_copied(with_age: Project) -> None:
    """The run after it goes on and ends with the same records; nothing stands twice."""
    assert with_age.dsn
    for seconds in (2.5, 4.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--batch", "10"],
            cwd=with_age.folder, env=clean_environment(), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with_age.ok("apply", "--auto-approve")
    assert EQUAL in with_age.ok("verify", "notes")
    assert run_sql(with_age.dsn, f"SELECT count(*) FROM {NODES}") == [(20,)]


def test_a_change_in_age_is_found_by_verify(with_age: Project) -> None:
    apply(with_age)
    assert with_age.dsn
    run_sql(with_age.dsn, f"DELETE FROM {NODES} WHERE ctid = (SELECT ctid FROM {NODES} LIMIT 1)", "SELECT 1")
    failed = with_age.run("verify", "notes")
    assert failed.returncode != 0
    assert "lost" in failed.stdout + failed.stderr


def test_an_age_database_of_somebody_else_is_taken_over(with_age: Project) -> None:
    """`db create` names what LightRAG already uses; from there the graph moves to tables."""
    apply(with_age)
    assert with_age.dsn
    run_sql(with_age.dsn, "DROP SCHEMA hybridrag_ledger CASCADE", "SELECT 1")
    shutil.rmtree(with_age.folder / "state")
    spec = with_age.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    del wanted["databases"]["notes"]
    wanted["databases"] = {}
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    with_age.ok(
        "db",
        "create",
        "notes",
        "--backend",
        "pg_age",
        "--embedding-model",
        "hash-emb",
        "--embedding-dim",
        "96",
    )
    want(with_age, {**ALL_BUT_GRAPH, "graph": "pg"})
    assert EQUAL in apply(with_age)
    assert json.loads(with_age.ok("status", "--json"))


def test_a_server_that_is_not_prepared_for_age(with_age: Project) -> None:
    """LightRAG would fail there now and then, whichever session it gets; the plan says what the administrator types."""
    assert with_age.dsn
    name = with_age.dsn.rpartition("/")[2]
    run_sql(with_age.dsn, f"ALTER DATABASE {name} RESET session_preload_libraries", "SELECT 1")
    refused = with_age.run("plan")
    assert refused.returncode == 4
    said = " ".join(refused.stderr.split())
    assert "ALTER DATABASE <database> SET session_preload_libraries = 'age'" in said
    assert "is not loaded into new sessions" in said
    run_sql(with_age.dsn, "DROP EXTENSION age", "SELECT 1")
    refused = with_age.run("plan")
    assert refused.returncode == 4
    assert "CREATE EXTENSION age" in " ".join(refused.stderr.split())


def test_a_server_without_age(tmp_path: Path, server: Server, database: str) -> None:
    """The next command is said, and nothing is created."""
    project = make_project(tmp_path / "project", server, database, EXAMPLE / "archive")
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["backends"]["pg"]["graph_storage"] = "PGGraphStorage"
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    refused = project.run("plan")
    said = " ".join(refused.stderr.split())
    assert refused.returncode == 4, said
    assert "the extension Apache AGE is not installed on the server" in said
    assert "remove backends.pg.graph_storage" in said
