"""`status`, `backend status` and `health`: right, quick to say what is wrong, and without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import jsonschema
import pytest

import hybridrag
from hybridrag.backends.json.counting import count_records
from hybridrag.backends.postgres import glance
from hybridrag.engine import status as look
from hybridrag.journal import Registry, RegistryEntry, known_counts, progress
from hybridrag.render.status_words import count
from tests.conftest import ROOT, Project, clean_environment, digests
from tests.support import big_database
from tests.support.target import run_sql

CONTRACT = {"database", "backend_type", "status", "metrics", "warnings"}
METRICS = {
    "backend_type", "file_sizes", "total_size_bytes", "entity_count", "relation_count", "chunk_count", "doc_count",
    "is_connected", "connection_latency_ms", "warnings",
}  # fmt: skip
SCHEMA = json.loads((ROOT / "schemas" / "backend-status.schema.json").read_text("utf-8"))


def spec(project: Project, was: str, becomes: str) -> None:
    path = project.folder / "hybridrag.yaml"
    text = path.read_text("utf-8")
    assert was in text
    path.write_text(text.replace(was, becomes), encoding="utf-8")


def backend_status(project: Project, *argv: str, code: int = 0) -> dict[str, Any]:
    """`backend status notes --json`, as its schema has it."""
    done = project.run("backend", "status", "notes", "--json", *argv)
    assert done.returncode == code, done.stdout + done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    jsonschema.Draft7Validator(SCHEMA).validate(made)
    return made


def counts(folder: Path) -> dict[str, int]:
    return {
        name: count
        for path in folder.iterdir()
        if path.is_file()
        for name, count in count_records(path).items()
    }


def test_backend_status_is_what_its_contract_says_before_and_after_the_move(project: Project) -> None:
    """All fields of the contract: files and thresholds first, then the server with its latency and size."""
    spec(project, "databases:", "defaults: {thresholds: {file_size: 20KB, total_size: 40KB}}\ndatabases:")
    full = counts(project.data)
    before = digests(project.folder)
    made = backend_status(project)
    assert made.keys() >= CONTRACT
    metrics = made["metrics"]
    assert metrics.keys() == METRICS | {"estimated"}
    assert (made["database"], made["backend_type"], made["status"]) == ("notes", "json", "degraded")
    assert metrics["file_sizes"] == {path.name: path.stat().st_size for path in project.data.iterdir()}
    assert metrics["total_size_bytes"] == sum(metrics["file_sizes"].values())
    exact = {
        "entity_count": "entities",
        "relation_count": "relationships",
        "chunk_count": "chunks",
        "doc_count": "doc_status",
    }
    assert {name: metrics[name] for name in exact} == {name: full[stream] for name, stream in exact.items()}
    assert (metrics["estimated"], metrics["is_connected"], metrics["connection_latency_ms"]) == (
        [],
        True,
        None,
    )
    large = {name for name, size in metrics["file_sizes"].items() if size > 20_000}
    assert large
    for name in large:
        assert any(
            line.startswith(f"{name}: ") and line.endswith("hybridrag migrate notes --to pg")
            for line in metrics["warnings"]
        )
    assert len(metrics["warnings"]) == len(large) + 1
    assert made["warnings"] == metrics["warnings"]
    assert backend_status(project, "--verbose")["metrics"]["records"] == full

    shown = project.ok("backend", "status", "notes")
    assert shown.splitlines()[:3] == ["Database  notes", "Backend   files (json)", "Status    degraded"]
    for name, size in metrics["file_sizes"].items():
        (line,) = [line for line in shown.splitlines() if line.strip().startswith(name)]
        assert line.endswith("! above 20.0 KB") == (size > 20_000)
    assert "\n  hybridrag migrate notes --to pg\n" in shown
    assert "the spec wants pg" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert digests(project.folder) == before

    project.ok("apply", "--auto-approve")
    made = backend_status(project)
    metrics = made["metrics"]
    assert (made["backend_type"], made["status"], made["migration"]) == ("postgres", "healthy", None)
    assert {name: metrics[name] for name in exact} == {name: full[stream] for name, stream in exact.items()}
    assert (metrics["file_sizes"], metrics["is_connected"], made["warnings"]) == ({}, True, [])
    assert metrics["connection_latency_ms"] > 0
    assert metrics["total_size_bytes"] > 1_000_000
    assert (
        known_counts(project.folder / "state" / "test" / "journal.db", str(project.data)).keys()
        == full.keys()
    )
    listed = json.loads(project.ok("backend", "status", "--json"))
    assert [item["database"] for item in listed["databases"]] == ["notes"]


@pytest.mark.slow
def test_backend_status_tells_by_its_exit_code_what_is_wrong(project: Project) -> None:
    """1: no such database; 2: a server or a folder that cannot be reached; a damaged file is told, and no error."""
    done = project.run("backend", "status", "nope")
    assert done.returncode == 1
    assert 'database "nope"' in done.stderr
    whole = (project.data / "vdb_chunks.json").read_bytes()
    (project.data / "vdb_chunks.json").write_bytes(whole[:-40])
    made = backend_status(project)
    assert (made["status"], made["metrics"]["chunk_count"]) == ("degraded", None)
    assert '"vdb_chunks.json" is damaged' in made["warnings"][0]
    assert "?" in project.ok("backend", "status", "notes")
    (project.data / "vdb_chunks.json").write_bytes(whole)

    project.ok("apply", "--auto-approve")
    port = next(
        line for line in (project.folder / "hybridrag.yaml").read_text().splitlines() if "port:" in line
    )
    spec(project, port, "    port: 1")
    made = backend_status(project, code=2)
    assert (made["status"], made["metrics"]["is_connected"], made["metrics"]["entity_count"]) == (
        "error",
        False,
        None,
    )
    assert "connection refused" in made["warnings"][0]
    shown = project.run("backend", "status").stdout
    assert "connection refused" in shown
    assert "→ start the server, or correct backends.pg.host" in shown
    health = project.run("health", "--json")
    assert health.returncode == 4
    report = json.loads(health.stdout)
    assert (report["files"]["healthy"], report["pg"]["healthy"], report["healthy"]) == (True, False, False)
    assert set(report["pg"]) == {"healthy", "latency_ms", "version", "detail"}
    spec(project, "    port: 1", port)
    assert "PostgreSQL" in project.ok("status")
    report = json.loads(project.ok("health", "--json"))
    assert (report["healthy"], report["pg"]["latency_ms"] > 0) == (True, True)

    (project.folder / "state" / "test" / "registry.yaml").unlink()
    shutil.rmtree(project.data)
    assert "does not exist" in backend_status(project, code=2)["warnings"][0]


def test_a_failed_migration_says_why(project: Project) -> None:
    """Until the next apply: the reason of the failure and where to look."""
    path = project.data / "kv_store_text_chunks.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"tokens": ', '"tokens": "many", "was": ', 1), encoding="utf-8")
    done = project.run("apply", "--auto-approve")
    assert done.returncode == 5
    move = backend_status(project)["migration"]
    assert (move["state"], move["step"]) == ("failed", "validate.notes")
    assert move["error"] in done.stderr
    line = f"migration failed: {move['error']}  → hybridrag plan"
    assert " ".join(line.split()) in " ".join(project.ok("status").split())
    path.write_text(text, encoding="utf-8")
    project.ok("apply", "--auto-approve")
    assert backend_status(project)["migration"] is None


def test_a_missing_index_and_a_missing_table_are_seen(project: Project) -> None:
    """Degraded when searches read everything, an error when LightRAG could not work at all."""
    project.ok("apply", "--auto-approve")

    async def execute(statement: str) -> None:
        opened = await asyncpg.connect(project.dsn)
        await opened.execute(statement)
        await opened.close()

    find = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%hnsw%' AND tablename LIKE '%entity%'"
    asyncio.run(execute(f"DO $$ BEGIN EXECUTE 'DROP INDEX ' || ({find}); END $$"))
    made = backend_status(project)
    assert made["status"] == "degraded"
    assert "lacks its vector index" in made["warnings"][0]
    asyncio.run(execute("DROP TABLE lightrag_doc_full"))
    made = backend_status(project, code=2)
    assert (made["status"], made["metrics"]["is_connected"]) == ("error", True)
    assert '"lightrag_doc_full" is missing' in made["warnings"][0].lower()


# --- a run that is going on, seen from another terminal ---


@pytest.fixture
def busy(
    make: Callable[[Path], Project], tmp_path: Path
) -> Iterator[tuple[Project, subprocess.Popen[bytes]]]:
    """An apply that was stopped while it copies (SIGSTOP), so that looking cannot come too late."""
    data = tmp_path / "data"
    big_database.build(data, mb=12, dim=96)
    project = make(data)
    spec(project, "    backend: pg\n", "    backend: pg\n    migration: {batch: 20}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--quiet"],
        cwd=project.folder, env=clean_environment(), start_new_session=True,
    )  # fmt: skip
    journal = project.folder / "state" / "test" / "journal.db"
    try:
        while not ((found := progress(journal).get("notes")) and found.phase == "copying"):
            assert process.poll() is None, "it was faster than we could look"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGSTOP)
        yield project, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def test_a_running_migration_is_seen_from_another_terminal_and_an_interrupted_one_too(
    busy: tuple[Project, subprocess.Popen[bytes]],
) -> None:
    """With records, total and share while the run lives; after a kill, that apply goes on; and looking leaves no trace."""
    project, process = busy
    before = digests(project.folder)
    move = backend_status(project)["migration"]
    assert (move["state"], move["phase"], move["step"]) == ("running", "copying", "migrate.notes")
    assert 0 < move["records"] <= move["total"] == sum(counts(project.data).values())
    share = f"{move['records']:,} of {move['total']:,} records ({100 * move['records'] // move['total']} %)"
    for argv in (("status",), ("backend", "status", "notes")):
        assert f"migrating: copying {share}" in project.ok(*argv)
    whole = json.loads(project.ok("status", "--json"))
    assert (whole["running"], whole["databases"][0]["migration"]) == (True, move)
    assert ": running" in project.ok("status")
    assert digests(project.folder) == before

    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    assert backend_status(project)["migration"] == {**move, "state": "interrupted", "streams": []}
    shown = project.ok("status")
    assert f"migration interrupted (copying {share})  → hybridrag apply goes on" in shown
    assert ": killed" in shown
    assert digests(project.folder) == before

    hidden = project.folder / "hidden"
    (project.folder / "state").rename(hidden)
    lost = backend_status(project)["migration"]
    assert (lost["state"], lost["phase"]) == ("interrupted", "copying")
    assert lost["records"] > 0
    hidden.rename(project.folder / "state")

    project.ok("apply", "--auto-approve")
    assert backend_status(project)["migration"] is None
    assert "goes on" not in project.ok("status")


# --- many databases ---


def test_many_databases_on_one_server_share_a_connection(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve workspaces cost as many connections as one: their notes, the server's own look, its disk, and all counts."""
    project.ok("apply", "--auto-approve")
    registry = Registry(project.folder / "state" / "test" / "registry.yaml")
    first = registry.read().databases["notes"]
    text = (project.folder / "hybridrag.yaml").read_text("utf-8")
    for number in range(11):
        text += f"  more{number}: {{path: ./more{number}, backend: pg, embedding: {{model: hash-emb, dim: 96}}}}\n"
        registry.put(
            RegistryEntry.model_validate({**first.model_dump(), "name": f"more{number}", "revision": 0})
        )
    (project.folder / "hybridrag.yaml").write_text(text, encoding="utf-8")
    world = hybridrag.load(project.folder / "hybridrag.yaml").world
    connect, opened = asyncpg.connect, []

    async def counted(**options: Any) -> asyncpg.Connection:
        opened.append(options["server_settings"]["application_name"])
        return await connect(**options)

    monkeypatch.setattr(asyncpg, "connect", counted)
    found = asyncio.run(look(world)).databases
    assert sorted(opened) == ["hybridrag observe"] * 3 + ["hybridrag status"]
    assert [item.health for item in found] == ["healthy"] * 12
    assert [sum(item.records.values()) for item in found] == [sum(counts(project.data).values())] + [0] * 11


def test_big_tables_are_estimated_from_the_servers_statistics(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And called estimates; a workspace that the statistics do not know is counted."""
    project.ok("apply", "--auto-approve")
    world = hybridrag.load(project.folder / "hybridrag.yaml").world
    run_sql(str(project.dsn), "ANALYZE", "SELECT 1")
    monkeypatch.setattr(glance, "COUNTED", 0)
    (found,) = asyncio.run(look(world)).databases
    full = counts(project.data)
    assert found.estimated == full.keys()
    assert found.records == full
    assert count(found, "nodes") == f"~{full['nodes']:,}"
    stranger = world.backend("pg").store("", "stranger", world.database("notes").embedding)
    (seen,) = asyncio.run(stranger.glance())
    assert (set(seen.records.values()), seen.estimated) == ({0}, frozenset())


def test_what_is_broken_hides_nothing_else(tmp_path: Path) -> None:
    """A dead server, a missing folder and a damaged file beside a good database: each is told in its own line."""
    data = ROOT / "examples" / "01-json-to-postgres" / "archive"
    shutil.copytree(data, tmp_path / "torn")
    (tmp_path / "torn" / "kv_store_full_docs.json").write_text("{")
    (tmp_path / "hybridrag.yaml").write_text(f"""\
version: 1
environment: test
backends:
  files: {{type: json}}
  dead: {{type: postgres, host: 127.0.0.1, port: 1, user: u, database: d}}
databases:
  good: {{path: {data}, backend: files, embedding: {{dim: 96}}}}
  torn: {{path: ./torn, backend: files, embedding: {{dim: 96}}}}
  gone: {{path: ./gone, backend: dead, embedding: {{model: null, dim: 96}}}}
""")
    project = Project(tmp_path, tmp_path / "torn", None)
    before = digests(tmp_path)
    made = json.loads(project.ok("status", "--json"))
    assert {item["database"]: item["health"] for item in made["databases"]} == {
        "good": "healthy", "torn": "degraded", "gone": "error"
    }  # fmt: skip
    assert [item["pending"] for item in made["databases"]] == [False, False, True]
    shown = project.ok("status")
    for part in ('"kv_store_full_docs.json" is damaged', "gone", "connection refused"):
        assert part in shown
    assert digests(tmp_path) == before
    assert not (tmp_path / "state").exists()
