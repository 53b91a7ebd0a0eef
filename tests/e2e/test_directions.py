"""From anywhere to anywhere, as a user types it: there and back, slot by slot, and from one Postgres to another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import DIM, EXAMPLE, Project, Server, digests
from tests.support.milvus import MilvusServer
from tests.support.target import content, run_sql

EQUAL = "0 missing, 0 extra, 0 different"


def want(project: Project, backend: Any) -> None:
    """Change the one line of the spec."""
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["databases"]["notes"]["backend"] = backend
    spec.write_text(yaml.safe_dump(wanted, allow_unicode=True, sort_keys=False), encoding="utf-8")


def apply(project: Project, *argv: str) -> str:
    """Apply, and again: the second time there is nothing to do."""
    said = project.ok("apply", "--auto-approve", *argv)
    assert "No changes" in project.ok("apply", "--auto-approve")
    return said


def registry(project: Project) -> dict[str, Any]:
    text = (project.folder / "state" / "test" / "registry.yaml").read_text("utf-8")
    entry: dict[str, Any] = yaml.safe_load(text)["databases"]["notes"]
    return entry


def published(project: Project) -> dict[str, str]:
    return {
        name: digest for name, digest in digests(project.data).items() if not name.startswith(".hybridrag")
    }


def context(project: Project) -> str:
    return project.ok(
        "query", "notes", "Who restores manuscripts?", "--context-only", "--mode", "naive", "--json"
    )


def test_to_postgres_and_back_to_files(project: Project) -> None:
    """The files come back as LightRAG would have written them; what stood there is kept beside, nothing is deleted."""
    before = published(project)
    first = context(project)
    apply(project)
    assert EQUAL in project.ok("verify", "notes")
    want(project, "files")
    assert "copy 527 records to files" in project.ok("plan")
    assert EQUAL in apply(project)
    assert registry(project)["backend"] == "files"
    after = published(project)
    assert after.keys() == before.keys()
    for name in before:
        if name.startswith("kv_store"):
            old, new = (
                json.loads((folder / name).read_text("utf-8"))
                for folder in (EXAMPLE / "archive", project.data)
            )
            assert new.keys() == old.keys()
    kept = list((project.data / ".hybridrag").glob("before-*/*.json"))
    assert len(kept) >= 10
    assert json.loads(context(project))["data"] == json.loads(first)["data"]
    assert [kept["backend"] for kept in registry(project)["kept"]] == ["pg"]


@pytest.mark.slow
def test_there_back_and_there_again(project: Project) -> None:
    """A copy kept in Postgres that somebody wrote to since gives way only when that is allowed by name."""
    apply(project)
    want(project, "files")
    apply(project)
    want(project, "pg")
    assert "replace_kept" not in project.ok("plan")
    assert project.dsn
    run_sql(project.dsn, "UPDATE lightrag_doc_full SET content = content || '!'", "SELECT 1")
    assert "! replace_kept" in project.ok("plan")
    refused = project.run("apply", "--auto-approve")
    assert refused.returncode == 5
    assert "--allow replace_kept" in refused.stderr
    assert EQUAL in apply(project, "--allow", "replace_kept")
    assert registry(project)["backend"] == "pg"


def test_kept_slots_of_several_migrations_give_way_together(project: Project) -> None:
    """Slots that came one after the other, and left together, bear the marks of two migrations; consent is for all of them."""
    want(project, {"kv": "pg", "doc_status": "files", "vector": "files", "graph": "files"})
    apply(project)
    want(project, "pg")
    apply(project)
    want(project, "files")
    apply(project, "--allow", "replace_kept")
    want(project, "pg")
    refused = project.run("apply", "--auto-approve")
    assert (refused.returncode, "--allow replace_kept" in refused.stderr) == (5, True)
    assert EQUAL in apply(project, "--allow", "replace_kept")
    assert registry(project)["backend"] == "pg"


def test_from_one_postgres_to_another_workspace_server(
    project: Project, server: Server, tmp_path: Path
) -> None:
    """The source keeps every row, and its own statistics say that nobody wrote."""
    apply(project)
    assert project.dsn
    before = content(project.dsn, "notes")
    other = f"other_{tmp_path.name.replace('-', '_')}"[:60].lower()
    run_sql(server.dsn("tester"), f'CREATE DATABASE "{other}"', "SELECT 1")
    try:
        spec = project.folder / "hybridrag.yaml"
        wanted = yaml.safe_load(spec.read_text("utf-8"))
        wanted["backends"]["second"] = {**wanted["backends"]["pg"], "database": other}
        spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
        want(project, "second")
        assert EQUAL in apply(project)
        assert content(project.dsn, "notes") == before
        assert EQUAL in project.ok("verify", "notes")
        assert registry(project)["backend"] == "second"
    finally:
        run_sql(server.dsn("tester"), f'DROP DATABASE "{other}" WITH (FORCE)', "SELECT 1")


@pytest.fixture
def mixed(project: Project, milvus: MilvusServer) -> Project:
    """The project with a Milvus beside its Postgres."""
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["backends"]["vectors"] = {"type": "milvus", "uri": milvus.uri}
    wanted["databases"]["notes"]["workspace"] = f"w_{project.folder.parent.name}"[-40:].replace("-", "_")
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    shutil.copy(EXAMPLE / "embedding.py", project.folder)
    assert wanted["databases"]["notes"]["embedding"]["dim"] == DIM
    return project


@pytest.mark.slow
def test_vectors_in_milvus_and_the_rest_in_postgres_and_back(mixed: Project) -> None:
    """Two targets, one pause and one switch; LightRAG reads both; everything comes back into files."""
    first = context(mixed)
    want(mixed, {"kv": "pg", "doc_status": "pg", "vector": "vectors", "graph": "pg"})
    plan = mixed.ok("plan")
    assert "migrate.notes@vectors" in mixed.ok("plan", "--json")
    assert plan.count("  · pause ") == 1
    apply(mixed)
    assert EQUAL in mixed.ok("verify", "notes")
    assert json.loads(context(mixed))["data"] == json.loads(first)["data"]
    assert {slot: place["backend"] for slot, place in registry(mixed)["slots"].items()} == {
        "kv": "pg",
        "doc_status": "pg",
        "vector": "vectors",
        "graph": "pg",
    }
    assert "pg (vector: vectors)" in mixed.ok("db", "list")
    want(mixed, "files")
    apply(mixed)
    assert json.loads(context(mixed))["data"] == json.loads(first)["data"]


@pytest.mark.slow
def test_one_slot_moves_alone(mixed: Project) -> None:
    """`--to milvus` is what Milvus can hold: vectors leave Postgres; the other slots are neither read nor written."""
    apply(mixed)
    assert mixed.dsn
    told = json.loads(mixed.ok("migrate", "notes", "--to", "milvus", "--dry-run", "--json"))
    steps = [step["id"] for step in told["steps"]]
    assert [step for step in steps if step.startswith("migrate")] == ["migrate.notes@vectors"]
    done = mixed.ok("migrate", "notes", "--to", "milvus", "--yes")
    assert '"notes" is served by "pg (vector: vectors)"' in " ".join(done.split())
    assert registry(mixed)["slots"]["graph"]["backend"] == "pg"
    wanted = yaml.safe_load((mixed.folder / "hybridrag.yaml").read_text("utf-8"))
    slots = {"kv": "pg", "doc_status": "pg", "vector": "vectors", "graph": "pg"}
    assert wanted["databases"]["notes"]["backend"] == slots
    assert "Milvus" in mixed.ok("status")


@pytest.mark.slow
def test_two_entries_for_one_milvus_are_one_place(mixed: Project) -> None:
    """Whatever name leads there: the copy that serves is offered to nobody for overwriting, and stays."""
    spec = mixed.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    vectors = wanted["backends"]["vectors"]
    wanted["backends"]["again"] = {**vectors, "uri": vectors["uri"].replace("127.0.0.1", "localhost")}
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    slots = {"kv": "files", "doc_status": "files", "graph": "files"}
    want(mixed, {**slots, "vector": "vectors"})
    apply(mixed)
    want(mixed, {**slots, "vector": "again"})
    for argv in (("plan",), ("apply", "--auto-approve", "--allow", "overwrite")):
        refused = mixed.run(*argv)
        assert refused.returncode == 5
        words = " ".join(refused.stderr.split())
        assert 'backends "vectors" and "again" are one place for the vector slot' in words
    want(mixed, {**slots, "vector": "vectors"})
    assert EQUAL in mixed.ok("verify", "notes")


def test_a_slot_that_a_backend_cannot_hold(mixed: Project) -> None:
    want(mixed, "vectors")
    refused = mixed.run("plan")
    assert refused.returncode == 5
    words = " ".join(refused.stderr.split())
    assert 'backend "vectors" (milvus) cannot hold the kv and doc_status and graph slots' in words
    assert "databases.notes.backend: {kv: OTHER, doc_status: OTHER, vector: vectors, graph: OTHER}" in words


@pytest.mark.slow
def test_vectors_that_milvus_lost_are_put_back(mixed: Project, milvus: MilvusServer) -> None:
    """Slots lie apart: what the graph in Postgres still needs and Milvus lost is named by `drift`, and `repair` restores it."""
    want(mixed, {"kv": "pg", "doc_status": "pg", "vector": "vectors", "graph": "pg"})
    apply(mixed)
    client = milvus.client("default")
    try:
        workspace = yaml.safe_load((mixed.folder / "hybridrag.yaml").read_text("utf-8"))["databases"][
            "notes"
        ]["workspace"]
        (name,) = [each for each in client.list_collections() if workspace in each and "entities" in each]
        rows = client.query(name, filter="id != ''", output_fields=["id"], limit=4)
        client.delete(name, ids=[row["id"] for row in rows])
    finally:
        client.close()
    drifted = mixed.run("drift")
    assert drifted.returncode == 2
    assert "4 entity vectors are gone" in drifted.stdout
    assert "4 entity vectors are gone" in " ".join(mixed.ok("plan").split())
    assert "put back 4 entity vectors" in mixed.ok("repair", "notes", "--yes")
    assert EQUAL in mixed.ok("verify", "notes")
    assert mixed.run("drift").returncode == 0
