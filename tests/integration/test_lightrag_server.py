"""A real `lightrag-server`, started from the variables of a migrated database, serves it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hybridrag
from hybridrag.model.selection import Selection
from tests.conftest import DIM, Project, clean_environment
from tests.support.ask_database import asked_of_server
from tests.support.model_server import SITE, ModelServer
from tests.support.same_answers import differences

from .test_lightrag_answers import MODES, QUESTIONS, TOP_K, child, count_embeddings, embedded, search_exactly

SERVER = Path(sys.executable).parent / "lightrag-server"
STARTS_WITHIN_S = 60
missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing) or not SERVER.exists(),
    reason=f"lightrag-server is not installed ({', '.join(missing)}): pip install 'lightrag-hku[api]'",
)


def dotenv(selection: Selection, models: ModelServer, port: int) -> dict[str, str]:
    """What a user writes into the server's `.env`: the store's own variables, and his models."""
    return {
        "LIGHTRAG_KV_STORAGE": selection.kv,
        "LIGHTRAG_VECTOR_STORAGE": selection.vector,
        "LIGHTRAG_GRAPH_STORAGE": selection.graph,
        "LIGHTRAG_DOC_STATUS_STORAGE": selection.doc_status,
        **selection.variables,
        **{name: get() for name, get in selection.secrets.items()},
        "WORKSPACE": selection.workspace,
        "EMBEDDING_BINDING": "openai",
        "EMBEDDING_BINDING_HOST": models.url,
        "EMBEDDING_BINDING_API_KEY": "none",
        "EMBEDDING_MODEL": "hash-emb",
        "EMBEDDING_DIM": str(DIM),
        "LLM_BINDING": "openai",
        "LLM_BINDING_HOST": models.url,
        "LLM_BINDING_API_KEY": "none",
        "LLM_MODEL": "scripted",
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """One request to the server, answered in JSON."""
    request = urllib.request.Request(  # noqa: S310 - our own http://127.0.0.1
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{url}: {error.code} {error.read().decode()[:2000]}") from None


@contextmanager
def running(folder: Path, variables: dict[str, str]) -> Iterator[str]:
    """A lightrag-server with these variables in its `.env`; gone at the end, whatever happens."""
    folder.mkdir()
    (folder / ".env").write_text("".join(f"{k}='{v}'\n" for k, v in variables.items()), encoding="utf-8")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    log = folder / "server.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(SERVER)],
            cwd=folder,
            env=clean_environment(PYTHONPATH=str(folder / "site"), no_proxy="*"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{variables['PORT']}"
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while True:
            assert process.poll() is None, log.read_text("utf-8", "replace")[-4000:]
            assert time.monotonic() < until, log.read_text("utf-8", "replace")[-4000:]
            try:
                call(f"{url}/health")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
async def test_a_real_server_serves_the_migrated_database(project: Project, tmp_path: Path) -> None:
    """It is healthy on Postgres, counts the documents of the source and answers as LightRAG did on the JSON files."""
    count_embeddings(project.folder)
    twin = tmp_path / "twin"
    shutil.copytree(project.folder, twin)
    await search_exactly(project)
    project.ok("apply", "--auto-approve")
    questions = QUESTIONS[6:10]
    before = child("ask", twin, questions=questions, modes=MODES, top_k=TOP_K)["answers"]
    documents = json.loads((twin / "notes/kv_store_doc_status.json").read_text("utf-8"))

    world = hybridrag.load(project.folder / "hybridrag.yaml").world
    item = world.database("notes")
    selection = world.selection(item)
    with (
        ModelServer(DIM) as models,
        running(tmp_path / "served", dotenv(selection, models, free_port())) as url,
    ):
        health = call(f"{url}/health")
        assert health["status"] == "healthy"
        configuration = health["configuration"]
        assert configuration["kv_storage"] == "PGKVStorage"
        assert configuration["graph_storage"] == "PGTableGraphStorage"
        assert set(configuration["storage_workspaces"].values()) == {"notes"}
        counts = call(f"{url}/documents/status_counts")["status_counts"]
        assert (counts["processed"], sum(counts.values()) - counts.get("all", 0)) == (
            len(documents),
            len(documents),
        )

        found = dict.fromkeys(MODES, 0)
        for question in questions:
            for mode in MODES:
                body = asked_of_server(question, mode, TOP_K)
                data = call(f"{url}/query/data", body)["data"]
                found[mode] += bool(data)
                assert differences(mode, before[f"{mode}: {question['text']}"], data) == []
        assert min(found.values()) >= 3, found
        assert set(models.embedded) == set(embedded(twin)) - {""}
        assert models.prompts == []

        answer = call(f"{url}/query", {"query": "What is kept in the archive?", "mode": "mix"})
        assert answer["response"].startswith("Summary "), "the scripted model's answer"
        assert len(models.prompts) == 2  # keywords, then the answer
