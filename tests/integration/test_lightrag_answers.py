"""Real LightRAG on the JSON source and on Postgres: the same answers, and the same again when it goes on writing.

LightRAG keeps one Postgres pool for each process, so each side is a process of its own
(`tests.support.ask_database`), opened through `hybridrag.open`. The database is set to exact search
(`enable_indexscan = off`): HNSW is approximate by design, and what it leaves out is no loss of the migration.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from tests.conftest import EXAMPLE, OLD_DATABASE, ROOT, Project, clean_environment, digests
from tests.support.make_database import PEOPLE, PLACES, SUBJECTS
from tests.support.same_answers import differences, order_differences

MODES = ["naive", "local", "global", "hybrid", "mix"]
TOP_K = 7  # less than there is of anything, so that ranking decides
QUESTIONS = [
    *(
        {
            "text": f"What does {person} do about {SUBJECTS[i % 6]} at {PLACES[i % 6]} in cycle 42?",
            "low": person,
            "high": SUBJECTS[i % 6],
        }
        for i, person in enumerate(PEOPLE)
    ),
    *({"text": f"Who works at {place}?", "low": place, "high": "leads, audits, designs"} for place in PLACES),
    *(
        {
            "text": f"Tell me of {subject} at {PLACES[(i + 2) % 6]}",
            "low": subject,
            "high": f"topic, {subject}",
        }
        for i, subject in enumerate(SUBJECTS)
    ),
    {"text": "Report 00001 of the archive", "low": "archive", "high": "manuscript 📜"},
    {"text": "Θάλασσα", "low": "nothing of the kind", "high": "unheard of"},
]
LOGGING_EMBEDDING = """

_embed = embed


async def embed(texts, **given):
    with open(__file__ + ".log", "a", encoding="utf-8") as log:
        log.writelines(json.dumps(text) + "\\n" for text in texts)
    return await _embed(texts, **given)


import json  # noqa: E402 - appended by a test to count what is embedded
"""


def embedded(folder: Path) -> list[str]:
    """Every text that any process embedded with this folder's `embedding.py`."""
    log = folder / "embedding.py.log"
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []


def count_embeddings(folder: Path) -> None:
    with (folder / "embedding.py").open("a", encoding="utf-8") as file:
        file.write(LOGGING_EMBEDDING)


async def search_exactly(project: Project) -> None:
    """From now on every session of the project's Postgres database scans all vectors."""
    assert project.dsn is not None
    connection = await asyncpg.connect(project.dsn)
    try:
        await connection.execute(
            f"ALTER DATABASE {project.dsn.rpartition('/')[2]} SET enable_indexscan = off"
        )
    finally:
        await connection.close()


def child(job: str, folder: Path, **task: Any) -> dict[str, Any]:
    """Run one job of ask_database.py on the spec of a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.ask_database", job],
        input=json.dumps({"spec": str(folder / "hybridrag.yaml"), **task}),
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def both(job: str, source: Path, target: Path, **task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same job on the JSON copy and on Postgres, side by side."""
    with ThreadPoolExecutor(2) as pool:
        sides = [pool.submit(child, job, folder, **task) for folder in (source, target)]
        return sides[0].result(), sides[1].result()


def same(one: dict[str, Any], other: dict[str, Any], **options: Any) -> list[str]:
    """All differences between two sets of answers, each with its question."""
    assert one.keys() == other.keys()
    return [
        f"{question}: {difference}"
        for question in one
        for difference in differences(question.partition(":")[0], one[question], other[question], **options)
    ]


@pytest.fixture
def migrated(make: Callable[[Path], Project], tmp_path: Path) -> Callable[[Path], Any]:
    """A project of given data, moved to Postgres, and an untouched twin of its folder where JSON still serves."""

    async def move(data: Path) -> tuple[Project, Path]:
        project = make(data)
        count_embeddings(project.folder)
        twin = tmp_path / "twin"
        shutil.copytree(project.folder, twin)
        for folder in (project.folder, twin):  # of another LightRAG, which reads .env of the current folder
            with (folder / ".env").open("a", encoding="utf-8") as file:
                file.write("POSTGRES_SSL_MODE=require\nPOSTGRES_WORKSPACE=elsewhere\nWORKSPACE=elsewhere\n")
        spec = twin / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("environment: test", "environment: twin"), "utf-8")
        await search_exactly(project)
        project.ok("apply", "--auto-approve")
        assert embedded(project.folder) == [], "a migration embeds nothing"
        return project, twin

    return move


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(EXAMPLE / "archive", id="1.5.7"),
        pytest.param(OLD_DATABASE, id="1.4.9.8", marks=pytest.mark.slow),
    ],
)
async def test_lightrag_answers_the_same_from_json_and_from_postgres(data: Path, migrated: Any) -> None:
    """22 questions in all five modes: the same entities, relations and chunks, field by field; the same rankings."""
    project, twin = await migrated(data)
    before = digests(twin / "notes")
    task = {"questions": QUESTIONS, "modes": MODES, "top_k": TOP_K}
    source, target = both("ask", twin, project.folder, **task)

    assert source["storages"] == ["JsonKVStorage", "NanoVectorDBStorage"]
    assert target["storages"] == ["PGKVStorage", "PGVectorStorage"]
    assert len(source["answers"]) == len(QUESTIONS) * 5
    assert same(source["answers"], target["answers"]) == []
    for mode in MODES:
        told = [q for q, answer in source["answers"].items() if q.startswith(mode) and any(answer.values())]
        assert len(told) >= 20, f"{mode}: too few questions that find anything"

    found = 0
    for question, scored in source["rankings"].items():
        ids = [name for name, _ in target["rankings"][question]]
        assert order_differences(scored, ids) == [], question
        found += len(ids)
    assert found > 500

    asked = {text for question in QUESTIONS for text in question.values()}
    assert set(embedded(project.folder)) <= asked, "only questions and their keywords are embedded"
    assert sorted(embedded(project.folder)) == sorted(embedded(twin))
    assert digests(twin / "notes") == before, "asking writes nothing"


async def test_lightrag_goes_on_writing_in_postgres(migrated: Any) -> None:
    """An insert and a delete have the same effect on Postgres as on JSON, down to the answers afterwards."""
    project, twin = await migrated(EXAMPLE / "archive")
    statuses = json.loads((twin / "notes/kv_store_doc_status.json").read_text("utf-8"))
    gone = next(iter(statuses))
    text = "The harbour. " + " ".join(
        f"«Zoë Müller» leads «tide tables» at «Ōsaka Harbour» in cycle {n}." for n in range(900, 912)
    )
    new = {"text": "Who leads tide tables at Ōsaka Harbour?", "low": "Ōsaka Harbour", "high": "tide tables"}
    old = {"text": document_text(twin, gone), "low": "Zoë Müller", "high": "leads"}
    source, target = both(
        "edit", twin, project.folder,
        insert=text, file="hafen_é.txt", delete=gone, delete_chunks=statuses[gone]["chunks_list"],
        questions=[new, old, *QUESTIONS[:6]], modes=MODES, top_k=TOP_K,
    )  # fmt: skip
    for side in (source, target):
        assert side["deletion"] == "success"
        assert side["status"] == "processed"
        assert side["counts"]["processed"] == len(statuses)  # one more, one less
        assert side["deleted_status"] is None
        assert side["deleted_document"] is None
        assert side["deleted_chunks"] == []
        assert "Ōsaka Harbour" in side["nodes"]
        for mode in MODES:
            answer = side["answers"][f"{mode}: {new['text']}"]
            assert answer["chunks"][0]["file_path"] == "hafen_é.txt", mode
            if mode != "naive":
                assert "Ōsaka Harbour" in {entity["entity_name"] for entity in answer["entities"]}, mode
        chunks = {
            chunk["chunk_id"] for answer in side["answers"].values() for chunk in answer.get("chunks", [])
        }
        assert not chunks & set(statuses[gone]["chunks_list"])
    assert source["nodes"] == target["nodes"]
    assert source["entity_chunks"] == target["entity_chunks"]
    assert same(source["answers"], target["answers"], ignore=["created_at"]) == []
    assert "No changes" in project.ok("apply", "--auto-approve"), (
        "what was written since is nobody's difference"
    )


def document_text(folder: Path, doc: str) -> str:
    """The beginning of a document: asking for it would find its chunks before anything else."""
    return json.loads((folder / "notes/kv_store_full_docs.json").read_text("utf-8"))[doc]["content"][:200]


@pytest.mark.slow
async def test_query_prints_the_same_before_and_after_the_move(project: Project) -> None:
    """`hybridrag query --context-only` retrieves in every mode from the backend that serves, without a model."""
    count_embeddings(project.folder)
    await search_exactly(project)
    before = digests(project.data)
    text = "Who works at 北京图书馆?"

    def ask(mode: str) -> dict[str, Any]:
        flags = ["--context-only", "--mode", mode, "--json", "--top-k", "5"]
        return json.loads(project.ok("query", "notes", text, *flags))

    def in_all_modes() -> dict[str, Any]:
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(MODES, pool.map(ask, MODES), strict=True))

    first = in_all_modes()
    assert digests(project.data) == before
    assert {answer["backend"] for answer in first.values()} == {"files"}
    project.ok("apply", "--auto-approve")
    then = in_all_modes()
    assert {answer["backend"] for answer in then.values()} == {"pg"}
    for mode in MODES:
        assert first[mode]["data"]["chunks"], mode
        assert bool(first[mode]["data"]["entities"]) == (mode != "naive")
        assert differences(mode, first[mode]["data"], then[mode]["data"]) == []
    assert "北京图书馆" in project.ok("query", "notes", text, "--context-only", "--mode", "local")
    assert set(embedded(project.folder)) == {text}


@pytest.mark.slow
async def test_open_refuses_a_second_database_in_one_process(project: Project) -> None:
    """LightRAG would silently read the first one; `hybridrag.open` says so instead, and the first one still works.

    Moving a database and going on with it in the same process is no second database: that works.
    """
    spec = yaml.safe_load((project.folder / "hybridrag.yaml").read_text("utf-8"))
    spec["databases"]["other"] = {**spec["databases"]["notes"], "path": "./other"}
    shutil.copytree(OLD_DATABASE, project.folder / "other")
    text = yaml.safe_dump(spec, allow_unicode=True)
    (project.folder / "hybridrag.yaml").write_text(text, encoding="utf-8")

    refused_twice(child("two", project.folder, first="notes", second="other"), str(project.data))
    await search_exactly(project)
    moved = child("move", project.folder, questions=QUESTIONS[:3], modes=MODES, top_k=TOP_K)
    on_files, files, on_postgres, postgres = moved["found"]
    assert (files, postgres) == ("JsonKVStorage", "PGKVStorage")
    assert same(on_files, on_postgres) == []
    assert moved["left"] == 0
    refused_twice(child("two", project.folder, first="notes", second="other"), "Postgres before (notes)")


@pytest.mark.slow
async def test_open_and_query_never_begin_a_database(project: Project) -> None:
    """Where the folder is gone or the server is down they say so within seconds, and create nothing."""
    words = {"query": ["query", "notes", "who", "--context-only"]}
    project.data.rename(project.folder / "away")
    refused = project.run(*words["query"])
    assert (refused.returncode, "holds no LightRAG database" in refused.stderr) == (6, True)
    assert "holds no LightRAG database" in child("fail", project.folder)["error"]
    assert not project.data.exists()
    (project.folder / "away").rename(project.data)

    project.ok("apply", "--auto-approve")
    spec = (project.folder / "hybridrag.yaml").read_text("utf-8")
    down = re.sub(r"port: \d+", "port: 9", spec)
    (project.folder / "hybridrag.yaml").write_text(down, encoding="utf-8")
    started = time.monotonic()
    refused = project.run(*words["query"])
    assert (refused.returncode, "hybridrag status" in refused.stderr) == (4, True)
    assert "start the server" in child("fail", project.folder)["error"]
    assert time.monotonic() - started < 30


def refused_twice(answer: dict[str, Any], first: str) -> None:
    assert len(answer["refused"]) == 2
    for words in answer["refused"]:
        assert words is not None, "the second database was opened"
        assert first in words
        assert "in a process of its own" in words
    assert answer["nodes"] == answer["again"]
    assert "Zoë Müller" in answer["nodes"]
