"""A real lightrag-server whose database moves: idle, stopped, its `.env` rewritten, started; put back where it does not come up."""

from __future__ import annotations

import asyncio
import importlib.util
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import DIM, Project, clean_environment, digests
from tests.support.ask_database import asked_of_server
from tests.support.lightrag_server import SERVER, Served, make_served
from tests.support.model_server import ModelServer
from tests.support.same_answers import differences
from tests.support.target import run_sql

from .test_lightrag_answers import QUESTIONS, TOP_K, search_exactly

missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing) or not SERVER.exists(),
    reason=f"lightrag-server is not installed ({', '.join(missing)}): pip install 'lightrag-hku[api]'",
)
TEXT = "Report {} of the archive. «Zoë Müller» leads «schema drift» at «Café Réunion» in cycle {}."


@pytest.fixture
def served(project: Project) -> Iterator[Served]:
    with ModelServer(DIM) as models:
        server = make_served(project, models)
        try:
            yield server
        finally:
            server.kill()


def answers(served: Served) -> dict[str, Any]:
    found = {}
    for question in QUESTIONS[6:9]:
        for mode in ("naive", "local", "global"):
            body = asked_of_server(question, mode, TOP_K)
            found[f"{mode}: {question['text']}"] = served.call("/query/data", body)["data"]
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [
        f"{asked}: {each}"
        for asked in one
        for each in differences(asked.partition(":")[0], one[asked], other[asked])
    ]


def test_a_day_in_short(project: Project, served: Served) -> None:
    """JSON, Postgres, JSON again: equal answers, every document there, and the `.env` in the end as it was."""
    asyncio.run(search_exactly(project))
    served.declare()
    before = served.env
    served.start()
    documents = served.counts()["processed"]
    served.upload("before.txt", TEXT.format("before", 1))
    served.processed(documents + 1)
    asked = answers(served)
    assert any(asked.values())

    plan = project.ok("plan")
    assert f"wait until lightrag-server at {served.url} is idle, then stop it" in " ".join(plan.split())
    assert f"lightrag-server at {served.url} is stopped" in project.ok("apply", "--auto-approve")
    assert served.uses() == "PGKVStorage"
    assert same(asked, answers(served)) == []
    assert served.counts()["processed"] == documents + 1
    served.upload("after.txt", TEXT.format("after", 2))
    served.processed(documents + 2)
    assert project.dsn
    names = {row[0] for row in run_sql(project.dsn, "SELECT file_path FROM lightrag_doc_status")}
    assert {"before.txt", "after.txt"} <= names

    file = served.folder / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    kept = file.with_name(".env.before-hybridrag")
    assert (kept.read_text("utf-8"), stat.S_IMODE(kept.stat().st_mode)) == (before, 0o600)
    assert served.env.startswith(before.replace("LIGHTRAG_KV", "#hybridrag# LIGHTRAG_KV"))
    assert "No changes" in project.ok("apply", "--auto-approve")
    assert served.starts == 2

    asked = answers(served)
    project.ok("rollback", "notes", "--yes")
    assert served.uses() == "JsonKVStorage"
    assert served.env == before
    assert served.counts()["processed"] == documents + 2
    assert same(asked, answers(served)) == []
    served.upload("last.txt", TEXT.format("last", 3))
    served.processed(documents + 3)


@pytest.mark.slow
def test_put_back_when_it_does_not_come_up(project: Project, served: Served) -> None:
    """A start command that fails: the files serve again, the server runs on them, and the next apply only catches up."""
    before = served.env
    served.start()
    documents = served.counts()["processed"]
    wrong = served.folder / "wrong.py"
    # Comes up on the files only: what a firewall or a missing driver would do.
    wrong.write_text(
        "import pathlib, runpy, sys\n"
        "if 'PGKVStorage' in (pathlib.Path(sys.argv[1]) / '.env').read_text():\n"
        "    sys.exit('asyncpg: no route to host')\n"
        "runpy.run_path(str(pathlib.Path(sys.argv[1]) / 'start.py'))\n"
    )
    right = served._commands()["start"]
    served.declare(start=[right[0], str(wrong), *right[2:]])
    refused = project.run("apply", "--auto-approve")
    told = " ".join(refused.stderr.split())
    assert refused.returncode == 5, told
    assert "does not come up" in told
    assert "asyncpg: no route to host" in told
    assert '"notes" is served by backend "files" again' in told
    assert served.env == before
    assert served.uses() == "JsonKVStorage"
    assert "Still serving: notes by files" in " ".join(refused.stdout.split())
    registry = project.folder / "state" / "test" / "registry.yaml"
    assert not registry.exists() or "postgres" not in registry.read_text()

    served.upload("meanwhile.txt", TEXT.format("meanwhile", 2))
    served.processed(documents + 1)
    served.declare()
    said = " ".join(project.ok("apply", "--auto-approve").split())
    assert "are already copied" in said
    assert "written since the copy" in said or "carried over" in said
    assert served.uses() == "PGKVStorage"
    assert served.counts()["processed"] == documents + 1

    # And back: the way to the files fails, so Postgres serves on, and the files are as they were.
    held = digests(project.data)
    now = served.env
    wrong.write_text(wrong.read_text().replace("if 'PGKVStorage' in", "if 'PGKVStorage' not in"))
    served.declare(start=[right[0], str(wrong), *right[2:]])
    refused = project.run("rollback", "notes", "--yes")
    told = " ".join(refused.stderr.split())
    assert refused.returncode == 5, told
    assert '"notes" is served by backend "pg" again' in told
    assert served.env == now
    assert served.uses() == "PGKVStorage"
    files = {name: value for name, value in digests(project.data).items() if ".hybridrag" not in name}
    assert files == {name: value for name, value in held.items() if ".hybridrag" not in name}
    served.declare()
    served.want("files")
    project.ok("apply", "--auto-approve")
    assert served.uses() == "JsonKVStorage"
    assert served.env == before
    assert served.counts()["processed"] == documents + 1


@pytest.mark.slow
def test_a_busy_server_is_left_alone_and_an_upload_is_not_lost(project: Project, served: Served) -> None:
    """Never idle: refused, untouched. Uploaded between idle and stopped: there afterwards, and worked off."""
    served.declare(timeout=2)
    served.start()
    documents = served.counts()["processed"]
    served.models.may_answer.clear()
    served.upload("slow.txt", TEXT.format("slow", 2))
    while not served.call("/health")["pipeline_busy"]:
        time.sleep(0.1)
    refused = project.run("apply", "--auto-approve")
    told = " ".join(refused.stderr.split())
    assert refused.returncode == 5, told
    assert "its pipeline was not idle within 2 s; it was left running" in told
    assert (served.starts, served.uses()) == (1, "JsonKVStorage")
    served.models.may_answer.set()
    served.processed(documents + 1)

    # Its own stop command uploads first: nothing can come later than that.
    served.models.may_answer.clear()
    stop = served.folder / "late.py"
    stop.write_text(
        "import json, pathlib, runpy, sys, urllib.request\n"
        f"body = json.dumps({{'text': {TEXT.format('late', 3)!r}, 'file_source': 'late.txt'}}).encode()\n"
        f"urllib.request.urlopen(urllib.request.Request('{served.url}/documents/text', data=body,\n"
        "    headers={'Content-Type': 'application/json'})).close()\n"
        "runpy.run_path(str(pathlib.Path(sys.argv[1]) / 'stop.py'))\n"
    )
    served.declare(stop=[served._commands()["stop"][0], str(stop), str(served.folder)])
    done = project.run("apply", "--auto-approve")
    served.models.may_answer.set()
    assert done.returncode == 0, done.stderr
    assert "1 of its documents wait unfinished" in " ".join(done.stdout.split())
    found = served.counts()
    assert sum(v for k, v in found.items() if k != "all") == documents + 2, found
    served.call("/documents/reprocess_failed", {})
    served.processed(documents + 2)


@pytest.mark.long
def test_what_it_is_started_with_wins_and_is_told(project: Project, served: Served) -> None:
    """Without its key, or where it serves other files, it is left alone. A variable of its process says JSON: the server comes up, on the wrong stores, and the old backend serves again."""
    right = served._commands()["start"]
    program = served.folder / "serve.py"
    program.write_text(
        "import os, sys\nos.environ['LIGHTRAG_GRAPH_STORAGE'] = 'NetworkXStorage'\n"
        f"os.execv({str(SERVER)!r}, [{str(SERVER)!r}])\n"
    )
    start = [*right[:3], right[0], str(program)]
    with (served.folder / ".env").open("a") as file:
        file.write("LIGHTRAG_API_KEY=very-secret\n")
    served.key = "very-secret"
    served.start()
    for more in ({}, {"api_key": {"env": "WRONG"}}):
        served.declare(start=start, **more)
        refused = project.run("apply", "--auto-approve", WRONG="no")
        assert refused.returncode == 5, refused.stderr
        assert "LIGHTRAG_API_KEY" in refused.stderr
        assert served.starts == 1
    (project.folder / "other").mkdir()
    text = served.env
    (served.folder / ".env").write_text(text.replace("WORKSPACE=notes", "WORKSPACE=other"))
    served.kill()
    served.start()
    served.declare(start=start, api_key={"env": "KEY"})
    refused = project.run("apply", "--auto-approve", KEY="very-secret")
    assert "it uses the files in" in " ".join(refused.stderr.split())
    assert (refused.returncode, served.starts) == (5, 2)
    (served.folder / ".env").write_text(text)
    served.kill()
    served.start()
    (project.folder / "key").write_text("very-secret\n")
    served.declare(start=start, api_key={"file": "key"})
    refused = project.run("apply", "--auto-approve")
    told = " ".join(refused.stderr.split())
    assert refused.returncode == 5, told
    assert "it uses NetworkXStorage where PGTableGraphStorage serves" in told
    assert "win over its .env" in told
    assert '"notes" is served by backend "files" again' in told
    assert served.uses() == "JsonKVStorage"


@pytest.mark.slow
def test_killed_between_switch_and_start(project: Project, served: Served) -> None:
    """The next apply rewrites the `.env` and starts the server on what the registry names."""
    gate = served.folder / "gate.py"
    gate.write_text("import time\ntime.sleep(60)\n")
    served.declare(start=[sys.executable, str(gate)])
    served.start()
    text = served.env
    begun = subprocess.Popen(
        [sys.executable, "-m", "hybridrag", "apply", "--auto-approve"],
        cwd=project.folder,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 90
    while served.env == text:
        assert time.monotonic() < until
        assert begun.poll() is None
        time.sleep(0.02)
    begun.kill()
    begun.wait()
    (served.folder / ".env").write_text(text)  # as if it had come a moment earlier
    served.declare()
    assert "paused" in project.ok("status") or "pause" in project.ok("plan")
    project.ok("apply", "--auto-approve")
    assert served.uses() == "PGKVStorage"
