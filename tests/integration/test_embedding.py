"""The embedding is a fact: a model or dimension that is missing, misspelt or changed is refused, named, and loses nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.conftest import DIM, ROOT, Project, clean_environment, digests
from tests.support.milvus import MilvusServer
from tests.support.milvus_stores import records
from tests.support.target import rows_held, run_sql

APPLY = ("apply", "--auto-approve")
MODEL = "model: hash-emb"
TABLES = [f"lightrag_vdb_{name}_hash_emb_{DIM}d" for name in ("entity", "relation", "chunks")]


@contextlib.contextmanager
def answering(body: str) -> Iterator[str]:
    """The address of a server that answers everything with this JSON."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def edit(project: Project, old: str, new: str) -> None:
    path = project.folder / "hybridrag.yaml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def refused(project: Project, *argv: str, code: int = 5) -> str:
    """What it says, on one line; the files stay as they are."""
    before = digests(project.data)
    done = project.run(*argv)
    assert done.returncode == code, done.stdout + done.stderr
    assert digests(project.data) == before
    return " ".join(done.stderr.split())


def status(project: Project) -> tuple[str, str]:
    (database,) = json.loads(project.ok("status", "--json"))["databases"]
    return database["health"], "; ".join(database["warnings"])


def as_another_model(project: Project, model: str = "other") -> None:
    """What LightRAG does when it is told another model: it makes tables of its own, empty ones."""
    for table in TABLES:
        other = table.replace("hash_emb", model)
        run_sql(str(project.dsn), f"CREATE TABLE {other} (LIKE {table} INCLUDING ALL)", "SELECT 1")


def test_a_model_that_nobody_names_is_refused(project: Project) -> None:
    """Exit 3 with the line; `model: null` says that LightRAG has none; files need none."""
    edit(project, f"{MODEL}, ", "")
    said = refused(project, "plan", code=3)
    assert (
        '"notes" needs embedding.model: in backend "pg" LightRAG names its tables of vectors after it' in said
    )
    assert "model: null" in said
    assert "hybridrag.yaml:16" in said
    edit(project, "{dim:", "{model: null, dim:")
    project.ok(*APPLY)
    assert run_sql(str(project.dsn), "SELECT count(*) FROM lightrag_vdb_chunks")[0][0] > 0
    edit(project, "model: null, ", "")
    edit(project, "backend: pg", "backend: files")
    project.ok("validate")


@pytest.mark.parametrize(
    ("place", "text", "says"),
    [
        (".env", "EMBEDDING_MODEL=text-embedding-3-small\n", 'model "text-embedding-3-small"'),
        ("notes/.env", "WORKING_DIR=.\nEMBEDDING_DIM=1536\n", "1,536 dimensions"),
        ("config.ini", "[postgres]\nworkspace = notes\nembedding_model = other\n", 'model "other"'),
    ],
)
def test_settings_beside_the_database_are_compared(
    project: Project, place: str, text: str, says: str
) -> None:
    """`.env` and `config.ini` beside the spec, the folder, or in it: exit 5 with both values and where each stands."""
    with (project.folder / place).open("a") as file:
        file.write(text)
    for command in (["plan"], [*APPLY]):
        said = refused(project, *command)
        assert f'model "hash-emb" with {DIM} dimensions' in said
        assert f"{project.folder / place} says {says}" in said
        assert "re-embedding: a new vector for each of" in said
        assert project.dsn is not None
        assert project.dsn.split("@")[0].rpartition(":")[2] not in said
    assert not rows_held(str(project.dsn))


@pytest.mark.parametrize(
    "text",
    [
        "WORKING_DIR=./elsewhere\nEMBEDDING_MODEL=other\n",
        "WORKSPACE=somebody\nEMBEDDING_MODEL=other\n",
        "LIGHTRAG_VECTOR_STORAGE=PGVectorStorage\nPOSTGRES_WORKSPACE=somebody\nEMBEDDING_MODEL=other\n",
        f"EMBEDDING_MODEL=Hash-Emb\nEMBEDDING_DIM={DIM}\n",
        "EMBEDDING_DIM=\nLLM_MODEL=other\n",
    ],
)
def test_settings_of_another_database_and_those_that_agree_say_nothing(project: Project, text: str) -> None:
    """A folder or workspace that is not this database's, the same model in other letters: the plan goes on."""
    with (project.folder / ".env").open("a") as file:
        file.write(text)
    project.ok("plan")


def test_the_writer_is_asked(project: Project) -> None:
    """Its `env_file` belongs to the database whatever it says of folders; what it answers to `/health` counts, too."""
    writer = "writer: {kind: docker, container: absent-for-certain, env_file: ./server/.env}"
    with (project.folder / "hybridrag.yaml").open("a") as file:
        file.write(f"    {writer}\n")
    (project.folder / "server").mkdir()
    (project.folder / "server" / ".env").write_text("WORKING_DIR=/app/data\nEMBEDDING_MODEL=misspelt\n")
    said = refused(project, "plan")
    assert (
        f'{project.folder / "server" / ".env"} (databases.notes.writer.env_file) says model "misspelt"'
        in said
    )
    (project.folder / "server" / ".env").write_text("")
    health = {"status": "healthy", "configuration": {"embedding_model": None}}
    with answering(json.dumps(health)) as url:
        edit(
            project,
            writer,
            f"writer: {{kind: lightrag-server, url: '{url}', env_file: ./server/.env, stop: ['true'], start: ['true']}}",
        )
        assert f"{url}/health says no model" in refused(project, "plan")


def test_a_model_corrected_after_the_move(project: Project) -> None:
    """The tables that hold the vectors are named by every command, and never "No changes", "healthy" or zero vectors."""
    project.ok(*APPLY)
    held = rows_held(str(project.dsn))
    edit(project, MODEL, "model: other")
    for made in (False, True):  # before and after LightRAG was started with the other model
        if made:
            as_another_model(project)
        for command in (
            ["plan"],
            [*APPLY],
            ["verify", "notes"],
            ["rollback", "notes", "--yes"],
            ["query", "notes", "x", "--context-only"],
        ):
            said = refused(project, *command)
            assert f'model "other" with {DIM} dimensions' in said
            assert f'"hash_emb" with {DIM} dimensions' in said
            assert all(table in said for table in TABLES)
        assert "re-embedding: a new vector for each of" in said
        health, warnings = status(project)
        assert health == "error"
        assert made is False or TABLES[0] in warnings
    assert rows_held(str(project.dsn)) == held
    edit(project, "model: other", MODEL)
    assert "No changes" in project.ok("plan")
    project.ok("verify", "notes")


def test_a_dimension_corrected_after_the_move(project: Project) -> None:
    """The suffix tells it as well."""
    project.ok(*APPLY)
    edit(project, f"dim: {DIM}", "dim: 128")
    assert f'"hash_emb" with {DIM} dimensions' in refused(project, "plan")


def test_somebody_who_writes_with_another_model_is_seen(project: Project) -> None:
    """One vector in tables of another model is said as soon as it is not among the spec's; a copy of what is, is none."""
    project.ok(*APPLY)
    as_another_model(project)
    entity, other = TABLES[0], TABLES[0].replace("hash_emb", "other")
    run_sql(str(project.dsn), f"INSERT INTO {other} SELECT * FROM {entity}", "SELECT 1")
    assert "No changes" in project.ok("plan")
    run_sql(
        str(project.dsn),
        f"UPDATE {other} SET id = 'ent-new' WHERE id = (SELECT min(id) FROM {other})",
        "SELECT 1",
    )
    assert f"entity vectors in {other}" in refused(project, "plan")
    assert status(project)[0] == "error"


def test_tables_that_lightrag_left_behind_are_no_other_model(project: Project) -> None:
    """LightRAG copies what lies in tables without a model's name to those with it, and leaves it there."""
    project.ok(*APPLY)
    for table in TABLES:
        run_sql(
            str(project.dsn),
            f"CREATE TABLE {table[: table.index('_hash')]} AS SELECT * FROM {table}",
            "SELECT 1",
        )
    assert "No changes" in project.ok("plan")
    assert status(project)[0] == "healthy"


def test_a_stream_that_only_the_kept_copy_holds_is_not_lost(project: Project) -> None:
    """Going back, with or without consent to half a database, is refused: the stream, its number, and what helps."""
    project.ok(*APPLY)
    for table in TABLES:
        run_sql(str(project.dsn), f"DELETE FROM {table}", "SELECT 1")
    said = refused(project, "rollback", "notes", "--yes")
    assert 'backend "pg" holds no entity vectors beside' in said
    assert 'the copy kept in "files", which would be replaced, does' in said
    edit(project, "backend: pg", "backend: files")
    assert "hybridrag repair notes" in refused(
        project, *APPLY, "--allow", "incomplete_source", "--allow", "replace_kept"
    )
    edit(project, "backend: files", "backend: pg")
    assert "no entity vectors beside" in refused(project, "verify", "notes", code=7)
    project.ok("repair", "notes")
    project.ok("verify", "notes")


def test_files_without_vectors_never_serve_again(project: Project) -> None:
    """Nor by --discard-new: what is kept holds nodes and no entity vector."""
    (project.data / "vdb_entities.json").unlink()
    project.ok(*APPLY, "--allow", "incomplete_source")
    said = refused(project, "rollback", "notes", "--discard-new", "--yes")
    assert 'what is kept in "files" holds no entity vectors beside' in said


OPEN = """
import asyncio, json, sys
import hybridrag
from lightrag.utils import EmbeddingFunc
from hybridrag.adapters.lightrag_instance import word_tokenizer
from hybridrag.errors import HybridragError

async def embed(texts, **_):
    raise AssertionError("nothing is to be embedded here")

async def main():
    for dim, model in json.loads(sys.argv[1]):
        given = EmbeddingFunc(embedding_dim=dim, max_token_size=8192, func=embed, model_name=model)
        try:
            async with hybridrag.open(hybridrag.load("hybridrag.yaml"), "notes", embedding_func=given, tokenizer=word_tokenizer()):
                print("opened")
        except HybridragError as error:
            print(error.exit_code, error.what)

asyncio.run(main())
"""


def opened(project: Project, *given: tuple[int, str | None]) -> list[str]:
    """What `hybridrag.open` says to real LightRAG functions, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, json.dumps(given)], cwd=project.folder, capture_output=True, text=True,
        env=clean_environment(PYTHONPATH=str(ROOT)), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.startswith(("5 ", "opened"))]


def test_open_takes_no_other_embedding(project: Project) -> None:
    """Another model, another dimension, no model: refused before LightRAG looks; and where the places are another's."""
    project.ok(*APPLY)
    other, short, unnamed, right = opened(
        project, (DIM, "other"), (64, "hash-emb"), (DIM, None), (DIM, "hash-emb")
    )
    assert f'embedding_func is model "other" with {DIM} dimensions' in other
    assert 'embedding_func is model "hash-emb" with 64 dimensions' in short
    assert "embedding_func is no model" in unnamed
    assert right == "opened"
    tables = run_sql(
        str(project.dsn), "SELECT tablename FROM pg_tables WHERE tablename LIKE 'lightrag_vdb%' ORDER BY 1"
    )
    assert [name for (name,) in tables] == sorted(TABLES)
    edit(project, MODEL, "model: other")
    (said,) = opened(project, (DIM, "other"))
    assert TABLES[0] in said


@pytest.mark.slow
def test_milvus_collections_of_another_model(
    milvus: MilvusServer, vector_database: str, project: Project
) -> None:
    """The same where the vectors are in Milvus: a model is needed, and one corrected later is refused by name."""
    backend = f"  vectors: {{type: milvus, uri: '{milvus.uri}', database: {vector_database}}}\ndatabases:"
    edit(project, "databases:", backend)
    edit(project, "backend: pg", "backend: {kv: pg, doc_status: pg, vector: vectors, graph: pg}")
    edit(project, f"{MODEL}, ", "")
    assert "names its collections of vectors after it" in refused(project, "plan", code=3)
    edit(project, "{dim:", f"{{{MODEL}, dim:")
    project.ok(*APPLY)
    client = milvus.client(vector_database)
    held = records(client)
    edit(project, MODEL, "model: other")
    for command in (["plan"], ["verify", "notes"], ["rollback", "notes", "--yes"]):
        said = refused(project, *command)
        assert f"notes_entities_hash_emb_{DIM}d" in said
        assert 'model "other"' in said
    assert status(project)[0] == "error"
    assert records(client) == held
