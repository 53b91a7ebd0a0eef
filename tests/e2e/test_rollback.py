"""Back again, as a user types it: with what was written since, or without it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import yaml

from tests.conftest import Project, clean_environment, digests
from tests.e2e.test_directions import EQUAL, published, registry, want
from tests.support.lightrag_writes import write
from tests.support.milvus import MilvusServer
from tests.support.target import run_sql, tables


def documents(project: Project) -> set[str]:
    """Ids of the documents in the files."""
    return set(json.loads((project.data / "kv_store_full_docs.json").read_text("utf-8")))


def spec_backend(project: Project) -> Any:
    text = (project.folder / "hybridrag.yaml").read_text("utf-8")
    return yaml.safe_load(text)["databases"]["notes"]["backend"]


def rows(project: Project) -> dict[str, Any]:
    """Every row of the workspace in Postgres, without our own marks."""
    assert project.dsn
    found = {}
    for table, columns in tables(project.dsn).items():
        row = f"md5(ROW({', '.join(columns)})::text)"
        query = f"SELECT count(*), md5(string_agg({row}, '' ORDER BY {row})) FROM {table} WHERE workspace = 'notes'"
        found[table] = run_sql(project.dsn, query)[0]
    return found


def test_what_was_written_since_comes_along(project: Project) -> None:
    """There, an insert by LightRAG, and back: every record is in the files, the spec says so, Postgres is kept."""
    project.ok("migrate", "notes", "--to", "pg")
    before = documents(project)
    write(project)
    assert documents(project) == before
    held = rows(project)
    dry = project.ok("rollback", "notes", "--dry-run")
    assert "records to files" in dry
    assert spec_backend(project) == "pg"
    said = project.ok("rollback", "notes")
    assert EQUAL in said
    assert "hybridrag.yaml says so now" in said
    assert documents(project) > before
    assert spec_backend(project) == "files"
    assert registry(project)["backend_type"] == "json"
    assert rows(project) == held, "what was left is not touched"
    assert "No changes" in project.ok("apply", "--auto-approve")


@pytest.mark.slow
def test_back_to_a_kept_postgres_costs_what_differs(project: Project) -> None:
    """Files, Postgres, files, an insert, and back to Postgres: no row that did not change is written again."""
    project.ok("migrate", "notes", "--to", "pg")
    project.ok("rollback", "notes")
    gone = min(documents(project))
    write(project, delete=gone)
    assert gone not in documents(project)
    assert project.dsn
    kept = run_sql(project.dsn, "SELECT xmin::text, id FROM lightrag_doc_chunks WHERE workspace = 'notes'")
    plan = project.ok("rollback", "notes", "--dry-run")
    assert "take back the copy kept in pg" in plan
    assert "replace_kept" not in plan
    said = project.ok("rollback", "notes")
    assert "reclaim.notes" in said
    assert "written since the copy" in said
    now = run_sql(project.dsn, "SELECT xmin::text, id FROM lightrag_doc_chunks WHERE workspace = 'notes'")
    assert 0 < len(set(kept) - set(now)) < len(kept) / 2
    assert registry(project)["backend"] == "pg"
    assert documents(project) == {row[0] for row in run_sql(project.dsn, "SELECT id FROM lightrag_doc_full")}
    assert EQUAL in project.ok("verify", "notes")


@pytest.mark.slow
def test_a_kept_postgres_that_somebody_wrote_to_is_not_taken_back_silently(project: Project) -> None:
    """It gives way as a whole, and only when that is said; on no terminal that is --yes."""
    project.ok("migrate", "notes", "--to", "pg")
    project.ok("rollback", "notes")
    assert project.dsn
    run_sql(
        project.dsn,
        "UPDATE lightrag_doc_full SET content = content || '!' WHERE workspace = 'notes'",
        "SELECT 1",
    )
    before = rows(project), digests(project.folder)
    refused = project.run("rollback", "notes")
    assert refused.returncode == 5
    assert "--yes" in refused.stderr
    assert (rows(project), digests(project.folder)) == before
    assert EQUAL in project.ok("rollback", "notes", "--yes")
    assert registry(project)["backend"] == "pg"


@pytest.mark.slow
def test_a_postgres_that_was_there_first_is_gone_back_to(project: Project) -> None:
    """No mark of ours stands on it: it is taken back as well, and only what differs is written."""
    project.ok("migrate", "notes", "--to", "pg")
    assert project.dsn
    run_sql(project.dsn, "DROP SCHEMA hybridrag_ledger CASCADE", "SELECT 1")
    project.ok("rollback", "notes")
    assert project.dsn
    query = "SELECT xmin::text, id FROM lightrag_graph_nodes WHERE workspace = 'notes' ORDER BY 2"
    held = run_sql(project.dsn, query)
    said = project.ok("rollback", "notes")
    assert "reclaim.notes" in said
    assert "0 removed" in said
    assert run_sql(project.dsn, query) == held
    assert EQUAL in project.ok("verify", "notes")
    assert registry(project)["backend"] == "pg"


def test_leaving_behind_what_is_new(project: Project) -> None:
    """Only the pointer moves: files and rows are what they were; the way forward again is there as well."""
    project.ok("migrate", "notes", "--to", "pg")
    write(project)
    before = published(project), rows(project)
    refused = project.run("rollback", "notes", "--discard-new")
    assert refused.returncode == 5
    assert "stays behind: +1 full_docs" in " ".join(refused.stdout.split())
    assert spec_backend(project) == "pg"
    told = json.loads(project.ok("rollback", "notes", "--discard-new", "--dry-run", "--json"))
    assert "+1 doc_status" in told["left_behind"][0]
    project.ok("rollback", "notes", "--discard-new", "--yes")
    assert spec_backend(project) == "files"
    assert (published(project), rows(project)) == before
    assert "No changes" in project.ok("apply", "--auto-approve")
    want(project, "pg")
    assert "! replace_kept" in project.ok("plan"), (
        "records that exist nowhere else are never overwritten unasked"
    )
    want(project, "files")
    project.ok("rollback", "notes", "--discard-new", "--yes")
    assert registry(project)["backend"] == "pg"
    assert (published(project), rows(project)) == before


def test_no_way_back_to_files_that_were_changed(project: Project) -> None:
    """Nor to those that are gone; nothing is written then."""
    project.ok("migrate", "notes", "--to", "pg")
    file = project.data / "kv_store_full_docs.json"
    text = file.read_text("utf-8")
    os.utime(file)
    before = digests(project.folder)
    refused = project.run("rollback", "notes", "--discard-new", "--yes")
    assert refused.returncode == 5
    assert "was changed since it was left" in " ".join(refused.stderr.split())
    file.write_text(text[:-20], encoding="utf-8")
    assert project.run("rollback", "notes", "--discard-new", "--yes").returncode == 5
    file.write_text(text, encoding="utf-8")
    project.data.rename(project.folder / "away")
    assert project.run("rollback", "notes", "--discard-new", "--yes").returncode == 6
    (project.folder / "away").rename(project.data)
    assert digests(project.folder).keys() == before.keys()
    assert registry(project)["backend"] == "pg"


def test_nothing_to_go_back_to(project: Project) -> None:
    before = digests(project.folder)
    for words in (["rollback", "notes"], ["rollback", "nobody"], ["retire", "nobody"]):
        assert project.run(*words).returncode == 6, words
    assert "Nothing is kept" in project.ok("retire", "notes")
    assert digests(project.folder) == before


@pytest.mark.slow
def test_a_killed_rollback_is_finished_by_apply(project: Project) -> None:
    """Killed at random moments in both directions: one backend serves at any time, and no record is lost."""
    project.ok("migrate", "notes", "--to", "pg")
    write(project)
    held = len(documents(project)) + 1
    rng = random.Random(9)
    kills = 0
    for number in range(6):
        target = "files" if number % 2 == 0 else "pg"
        begun = subprocess.Popen(
            [sys.executable, "-m", "hybridrag", "rollback", "notes", "--yes"],
            cwd=project.folder,
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(0.4 + rng.random() * 1.4)
        kills += begun.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
        begun.wait(10)
        assert registry(project)["backend"] in ("pg", "files")
        want(project, target)
        project.ok("apply", "--auto-approve")
        assert registry(project)["backend"] == target
        assert EQUAL in project.ok("verify", "notes")
        assert len(documents(project)) == held
    assert kills >= 3


@pytest.mark.slow
def test_what_a_kill_leaves_around_the_switch_back(project: Project) -> None:
    """The mark says switched, the registry does not yet: nothing must be allowed, and only the rest is done."""
    project.ok("migrate", "notes", "--to", "pg")
    project.ok("rollback", "notes")
    write(project)
    place = project.folder / "state" / "test" / "registry.yaml"
    before = place.read_text("utf-8")
    project.ok("rollback", "notes")
    place.write_text(before, encoding="utf-8")
    said = project.ok("apply", "--auto-approve")
    assert "nothing was written meanwhile" in said
    assert registry(project)["backend"] == "pg"


@pytest.mark.slow
def test_one_slot_goes_back_alone(project: Project, milvus: MilvusServer) -> None:
    """Vectors left for Milvus and come back; the other slots stay where they are; Milvus gives up only what was kept."""
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["backends"]["vectors"] = {"type": "milvus", "uri": milvus.uri}
    wanted["databases"]["notes"]["workspace"] = f"w_{project.folder.parent.name}"[-40:].replace("-", "_")
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    project.ok("migrate", "notes", "--to", "pg")
    want(project, {"kv": "pg", "doc_status": "pg", "vector": "vectors", "graph": "pg"})
    project.ok("apply", "--auto-approve")
    write(project)
    plan = project.ok("rollback", "notes", "--dry-run")
    assert "take back the copy kept in pg" in plan
    project.ok("rollback", "notes")
    assert registry(project)["backend"] == "pg"
    assert spec_backend(project) == "pg"
    assert "vectors (vector) is kept until" in project.ok("status")
    assert "files is kept until" in project.ok("status")
    project.ok("retire", "notes", "--now", "--confirm", "notes")
    assert "kept" not in registry(project)
    assert not list(project.data.iterdir())
    assert "No changes" in project.ok("apply", "--auto-approve")
    assert "Zoë" in project.ok(
        "query", "notes", "Who leads tide tables?", "--context-only", "--mode", "naive"
    )


@pytest.mark.slow
def test_away_from_a_server_that_is_down(project: Project) -> None:
    """What is new there cannot be carried over, but the files as they were left can serve; nothing is deleted then."""
    project.ok("migrate", "notes", "--to", "pg")
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(re.sub(r"port: \d+", "port: 9", spec.read_text("utf-8")), encoding="utf-8")
    before = digests(project.folder)
    for words in (["rollback", "notes"], ["retire", "notes", "--now", "--confirm", "notes"]):
        assert project.run(*words).returncode == 4, words
    assert digests(project.folder) == before
    said = project.ok("rollback", "notes", "--discard-new", "--yes")
    assert "how much cannot be told" in " ".join(said.split())
    assert registry(project)["backend"] == "files"


def test_deleted_files_pass_for_no_copy_and_the_way_back_is_named(project: Project) -> None:
    """There and back; then somebody deletes the files. Plan and status name what is left, and all of it can be made anew."""
    want(project, "pg")
    project.ok("apply", "--auto-approve")
    want(project, "files")
    project.ok("apply", "--auto-approve")
    held = rows(project)
    for path in published(project):
        (project.data / path).unlink()
    refused = project.run("plan")
    assert refused.returncode == 6
    assert "hybridrag rollback notes --discard-new" in refused.stderr
    assert "hybridrag retire" not in project.ok("status")
    project.ok("rollback", "notes", "--discard-new", "--auto-approve")
    want(project, "files")
    assert EQUAL in project.ok("apply", "--auto-approve")
    assert "No changes" in project.ok("plan")
    assert rows(project) == held


@pytest.mark.slow
def test_a_deleted_file_of_a_finished_copy_is_copied_anew(project: Project) -> None:
    """The copy was verified and then killed; one of its files goes before the switch: nothing is switched without it."""
    want(project, "pg")
    project.ok("apply", "--auto-approve")
    want(project, "files")
    assert project.run("apply", "--auto-approve", HYBRIDRAG_FAILPOINTS="verify.done=kill").returncode == -9
    (staged,) = project.data.glob(".hybridrag/*/vdb_chunks.json")
    staged.unlink()
    assert EQUAL in project.ok("apply", "--auto-approve")
    assert "vdb_chunks.json" in published(project)
