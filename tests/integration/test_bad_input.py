"""Bad input: each mistake has its exit code, words that name the thing and the next command, and changes nothing."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from hybridrag.backends.postgres.embedded_place import free_port
from hybridrag.cli import main
from tests.conftest import DIM, EXAMPLE, Project, Server, clean_environment, digests, make_project
from tests.support.plain_postgres import plain_postgres
from tests.support.spoiling import (
    GRAPH,
    Change,
    cut,
    edit,
    first,
    kv,
    matrix_of,
    not_a_number,
    put_matrix,
    spec,
    swapped,
    twice_in_kv,
    twice_in_vdb,
    vdb,
    write_registry,
)
from tests.support.target import relations, rows_held, run_sql
from tests.support.untouched import CANARY, apply, assert_refused, empty, serving, steps_begun, untouched  # noqa: F401


@pytest.fixture
def poor(server: Server, empty: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"poor_{os.getpid()}"
    run_sql(server.dsn("tester"), f"CREATE ROLE {name} LOGIN PASSWORD '{CANARY}'")
    yield name
    run_sql(server.dsn(empty), f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def apply_here(project: Project) -> subprocess.CompletedProcess[str]:
    """The same in this process, which saves half a second of start-up for each of many cases."""
    argv = ["apply", "--auto-approve", "--events", "events.jsonl"]
    kept = clean_environment()
    done = CliRunner().invoke(main, argv, env={name: kept.get(name) for name in os.environ})
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, done.stderr)


@dataclass(frozen=True)
class Case:
    """What is spoiled, the exit code, what the error says, and whether the plan or `validate` finds it."""

    change: Change
    code: int
    says: tuple[str, ...]
    found_by: str = "plan"


REGISTRY_OF = "version: 1\ndatabases:\n  notes: {{name: notes, path: x, backend: {0}, backend_type: {1}}}\n"

CASES = {
    # the folder
    "folder missing": Case(lambda p: shutil.rmtree(p.data), 6, ("notes", "does not exist", "databases.notes.path")),
    "folder is a file": Case(
        lambda p: (shutil.rmtree(p.data), p.data.write_text("x")), 6, ("notes", "does not exist")
    ),
    "folder empty": Case(
        lambda p: [f.unlink() for f in p.data.iterdir()], 6, ("holds no LightRAG database", "databases.notes.path")
    ),
    "folder one too high": Case(
        spec("path: ./notes", "path: ./"), 6, ("holds no LightRAG database", '"notes" below it does')
    ),
    "a writer in the middle of a flush": Case(
        lambda p: (p.data / "kv_store_doc_status.json.tmp.4711.1").write_text("{"),
        5, ("somebody is writing", "kv_store_doc_status.json.tmp.4711.1", "hybridrag apply"), "validate",
    ),
    # damaged files
    "kv truncated": Case(cut("kv_store_text_chunks.json", 0.5), 4, ("kv_store_text_chunks.json", "truncated", "restore")),
    "vdb truncated in its matrix": Case(cut("vdb_entities.json", 0.9), 4, ("vdb_entities.json", "truncated", "restore")),
    "vdb truncated in its data": Case(cut("vdb_relationships.json", 0.2), 4, ("vdb_relationships.json", "truncated")),
    "graph truncated": Case(cut(GRAPH, 0.7), 4, (GRAPH, "truncated", "restore")),
    "kv is a list": Case(
        lambda p: (p.data / "kv_store_full_docs.json").write_text('["x"]'), 4, ("kv_store_full_docs.json", "object")
    ),
    "kv malformed in the middle": Case(
        edit("kv_store_text_chunks.json", '"chunk_order_index": 2,', '"chunk_order_index": ,'),
        4, ("kv_store_text_chunks.json", "damaged after 2 good records", "repair"), "validate",
    ),
    "kv ends early and well": Case(
        edit("kv_store_llm_response_cache.json", '"queryparam": null,', '"queryparam": null}}'),
        4, ("kv_store_llm_response_cache.json", "repair"), "validate",
    ),
    "kv record is no object": Case(
        kv("full_entities", lambda whole: whole.update({"doc-x": 3})),
        5, ("doc-x", "kv_store_full_entities.json", "not an object"), "validate",
    ),
    "kv not UTF-8": Case(
        lambda p: (p.data / "kv_store_full_docs.json").write_bytes(
            (p.data / "kv_store_full_docs.json").read_bytes().replace("é".encode(), b"\xe9", 1)
        ),
        4, ("kv_store_full_docs.json", "damaged"), "validate",
    ),
    "vdb malformed in its data": Case(
        edit("vdb_relationships.json", '"tgt_id": ', '"tgt_id": }'), 4, ("vdb_relationships.json", "repair"), "validate"
    ),
    "graph malformed in the middle": Case(
        edit(GRAPH, "</node>", "</nodes>"), 4, (GRAPH, "damaged", "repair"), "validate"
    ),
    "graph with a control character": Case(
        edit(GRAPH, "Summary", "Sum\x00mary"), 4, (GRAPH, "damaged", "repair"), "validate"
    ),
    "vdb without dimensions": Case(
        vdb("chunks", lambda whole: whole.pop("embedding_dim")), 4, ("vdb_chunks.json", "embedding_dim"), "validate"
    ),
    "matrix has a row too few": Case(
        vdb("chunks", lambda whole: put_matrix(whole, matrix_of(whole)[:-1])),
        4, ("vdb_chunks.json", "fewer rows", "restore"), "validate",
    ),
    "matrix has a row too many": Case(
        vdb("entities", lambda whole: whole["data"].pop()), 4, ("vdb_entities.json", "more rows", "restore"), "validate"
    ),
    "matrix and data disagree": Case(
        vdb("entities", swapped), 5, ("vdb_entities.json", "two different vectors", "ent-"), "validate"
    ),
    "matrix is not base64": Case(
        vdb("chunks", lambda whole: whole.update(matrix="#" + whole["matrix"][1:])),
        4, ("vdb_chunks.json", "not base64"), "validate",
    ),
    "vector of a row cannot be decoded": Case(
        vdb("chunks", lambda whole: whole["data"][0].update(vector="eJw")),
        5, ("vdb_chunks.json", "cannot be decoded", "-chunk-000"), "validate",
    ),
    # between records
    "id twice in a kv file": Case(
        lambda p: twice_in_kv(p), 5, ("text_chunks holds a record twice", "(record 1)", "on_bad_record: quarantine"), "validate"
    ),
    "id twice in a vector file": Case(
        vdb("chunks", lambda whole: twice_in_vdb(whole)), 5, ("chunks holds a record twice", "record 1 has"), "validate"
    ),
    "edge to nowhere": Case(
        edit(GRAPH, 'target="', 'target="Nobody '), 5, ("Nobody ", "a node that does not exist", "edges"), "validate"
    ),
    # records that Postgres cannot hold
    "NUL": Case(
        kv("full_docs", lambda whole: first(whole).update(content="a\x00b")),
        5, ('full_docs "doc-', "NUL character", "repair or remove"), "validate",
    ),
    "NUL inside JSON": Case(
        kv("doc_status", lambda whole: first(whole)["metadata"].update(note="a\x00b")),
        5, ('doc_status "doc-', "NUL character"), "validate",
    ),
    "lone surrogate": Case(
        kv("text_chunks", lambda whole: first(whole).update(content="a\ud800b")),
        5, ("text_chunks", "repair"), "validate",
    ),
    "lone surrogate inside JSON": Case(
        kv("doc_status", lambda whole: first(whole)["metadata"].update(note="\udcff")),
        5, ("doc_status", "repair"), "validate",
    ),
    "key too long": Case(
        kv("full_docs", lambda whole: whole.update({"doc-" + "x" * 300: first(whole)})),
        5, ('full_docs "doc-xxx', "304 characters", "255"), "validate",
    ),
    "NaN in a vector": Case(
        vdb("entities", not_a_number), 5, ('entities "ent-', "NaN or Infinity"), "validate"
    ),
    "NaN in a key-value file": Case(
        kv("doc_status", lambda whole: first(whole)["metadata"].update(score=float("nan"))),
        5, ("doc_status",), "validate",
    ),
    "NaN in the graph": Case(
        edit(GRAPH, '<data key="d7">1.0</data>', '<data key="d7">nan</data>'), 5, ("edges", "NaN"), "validate"
    ),
    "text where a number belongs": Case(
        kv("text_chunks", lambda whole: first(whole).update(tokens="many")),
        5, ('text_chunks "doc-', "tokens is not a 32-bit integer"), "validate",
    ),
    "time that is none": Case(
        kv("doc_status", lambda whole: first(whole).update(created_at="yesterday")),
        5, ('doc_status "doc-', "created_at is not an ISO 8601 time"), "validate",
    ),
    "nested without end": Case(
        edit("kv_store_doc_status.json", '"metadata": {', '"metadata": {"deep": ' + "[" * 400 + "]" * 400 + ","),
        5, ("doc_status",), "validate",
    ),
    # the spec and the registry
    "dimensions differ from the spec": Case(
        spec(f"dim: {DIM}", "dim: 128"), 5, ("96 dimensions", "128", "databases.notes.embedding.dim")
    ),
    "unknown key": Case(spec("embedding:", "embeding:"), 3, ("embeding", "embedding", "hybridrag.yaml:")),
    "spec not YAML": Case(spec("databases:", "databases: ["), 3, ("hybridrag.yaml:",)),
    "spec without the backend": Case(spec("backend: pg", "backend: pq"), 3, ('"pq"', "hybridrag.yaml:")),
    "secret not set": Case(lambda p: (p.folder / ".env").unlink(), 4, ("TEST_PG_PASSWORD", "not set", ".env")),
    "registry not YAML": Case(write_registry("version: [1"), 3, ("registry.yaml:", "not YAML", "hybridrag plan")),
    "registry is a list": Case(write_registry("- 1\n"), 3, ("registry.yaml", "cannot be used", "hybridrag plan")),
    "registry of another version": Case(write_registry("version: 2\n"), 3, ("registry.yaml", "version", "hybridrag plan")),
    "registry entry without a path": Case(
        write_registry("databases: {notes: {name: notes}}\n"), 3, ("databases.notes.path", "hybridrag plan")
    ),
    "registry not text": Case(write_registry("\x00"), 3, ("registry.yaml", "hybridrag plan")),
    "registry names a backend that is not in the spec": Case(
        write_registry(REGISTRY_OF.format("elsewhere", "postgres")), 5, ('"elsewhere"', "databases.notes.backend")
    ),
    # the server
    "server down": Case(
        lambda p: spec("port: ", f"port: {free_port()} #")(p), 4, ('backend "pg"', "127.0.0.1:", "connection refused")
    ),
    "host unknown": Case(spec("host: 127.0.0.1", "host: no.such.host.invalid"), 4, ('backend "pg"', "no.such.host.invalid")),
    "password wrong": Case(
        lambda p: (p.folder / ".env").write_text(f"TEST_PG_PASSWORD={CANARY}\n"),
        4, ("refuses the password", '"tester"', "backends.pg"),
    ),
    "database missing on the server": Case(
        spec("database: ", "database: no_such #"), 4, ('no database "no_such"', "CREATE DATABASE")
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_is_refused_in_words_and_nothing_is_changed(
    untouched: Project, server: Server, empty: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spoiled input ends `apply` with its exit code and its next command; source, registry and server stay."""
    case.change(untouched)
    source = digests(untouched.data) if untouched.data.is_dir() else None
    known = digests(untouched.folder / "state")
    there = relations(server.dsn(empty))
    monkeypatch.chdir(untouched.folder)
    done = apply_here(untouched)
    assert_refused(done, case.code, *case.says, secrets=(CANARY, server.password))
    assert (digests(untouched.data) if untouched.data.is_dir() else None) == source
    assert relations(server.dsn(empty)) == there
    begun = steps_begun(untouched)
    if case.found_by == "plan":
        assert begun == []
        assert digests(untouched.folder / "state") == known
    else:
        assert case.found_by in begun
        assert "migrate" not in begun
        assert "pause" not in begun
        assert serving(untouched) is None


def test_a_role_without_rights_is_told_what_to_ask_for(
    untouched: Project, server: Server, empty: str, poor: str
) -> None:
    """Missing rights are found one by one, each with the administrator's next statement; nothing is created."""
    spec("user: tester", f"user: {poor}")(untouched)
    admin = server.dsn(empty)
    there = relations(admin)

    def refused(*says: str) -> None:
        assert_refused(apply(untouched, TEST_PG_PASSWORD=CANARY), 4, 'backend "pg"', *says)
        assert steps_begun(untouched) == []
        assert relations(admin) == there

    refused("pgvector is there but not created", "no right to create it", "CREATE EXTENSION vector")
    run_sql(admin, "CREATE EXTENSION vector")
    there = relations(admin)
    refused("no right to create schemas", "GRANT CREATE ON DATABASE")
    run_sql(admin, f"GRANT CREATE ON DATABASE {empty} TO {poor}")
    refused("no right to create tables", "GRANT ALL ON SCHEMA public")


@pytest.fixture
def plain_server() -> Iterator[Server]:
    """A Postgres without pgvector: Debian's programs, a throwaway cluster, an unprivileged account."""
    with plain_postgres(CANARY) as plain:
        yield Server("127.0.0.1", plain.port, "owner", CANARY)


def test_a_server_without_pgvector_is_refused(tmp_path: Path, plain_server: Server) -> None:
    """The extension's absence is found by the plan, which says how to install it; the server stays as it is."""
    project = make_project(tmp_path / "project", plain_server, "postgres", EXAMPLE / "archive")
    there = relations(plain_server.dsn("postgres"))
    assert_refused(
        apply(project), 4, 'backend "pg"', "pgvector is not installed", "postgresql-<version>-pgvector"
    )
    assert relations(plain_server.dsn("postgres")) == there
    assert steps_begun(project) == []


OTHER_DATA = {
    "documents": (
        "CREATE TABLE lightrag_doc_full (workspace varchar, id varchar, PRIMARY KEY (workspace, id))",
        "INSERT INTO lightrag_doc_full VALUES ('notes', 'doc-of-another')",
    ),
    "vectors of another model": (
        "CREATE TABLE lightrag_vdb_entity_ada_96d (workspace varchar, id varchar)",
        "INSERT INTO lightrag_vdb_entity_ada_96d VALUES ('notes', 'ent-of-another')",
    ),
}


@pytest.mark.parametrize("statements", OTHER_DATA.values(), ids=OTHER_DATA.keys())
def test_a_workspace_with_other_data_is_not_written_unasked(
    untouched: Project, server: Server, empty: str, statements: tuple[str, str]
) -> None:
    """Rows that are not ours stop an apply before its first step; they are neither overwritten nor mixed with ours."""
    run_sql(server.dsn(empty), *statements, "SELECT 1")
    there = relations(server.dsn(empty))
    assert "! overwrite" in untouched.ok("plan")
    done = untouched.run("apply", "--auto-approve")
    assert_refused(
        done, 5, 'workspace "notes"', "holds other data", "--allow overwrite", "databases.notes.workspace"
    )
    assert relations(server.dsn(empty)) == there
    assert rows_held(server.dsn(empty)) == 1


def test_a_field_without_a_column_goes_along_unasked(project: Project) -> None:
    """Nobody is asked, nothing is lost: it is verified in Postgres and stands in the files after a rollback."""
    kv("full_docs", lambda whole: first(whole).update(multimodal_content=[1]))(project)
    before = digests(project.data)
    done = apply(project)
    assert "0 missing, 0 extra, 0 different" in done.stdout
    assert serving(project) == "pg"
    assert digests(project.data) == before
    run_sql(str(project.dsn), "UPDATE lightrag_doc_full SET process_options = 'p'")
    project.ok("rollback", "notes", "--auto-approve")
    docs = json.loads((project.data / "kv_store_full_docs.json").read_text("utf-8"))
    (marked,) = (doc for doc in docs.values() if "multimodal_content" in doc)
    assert (marked["multimodal_content"], marked["process_options"]) == ([1], "p")
