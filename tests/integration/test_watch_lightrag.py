"""The daemon with LightRAG itself: fed while it is moved to Postgres, nothing lost, nothing twice."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import DIM, Project
from tests.support.make_database import document
from tests.support.model_server import ModelServer
from tests.support.target import run_sql
from tests.support.watching import Watched, make_watched, until

pytest.importorskip("hybridrag.adapters.ingester", reason="needs the ingester of LightRAG")


@pytest.fixture
def fed(project: Project, tmp_path: Path) -> Iterator[Watched]:
    """The example, fed from a folder by LightRAG with a scripted model."""
    with ModelServer(DIM) as models:
        made = make_watched(project, tmp_path / "control", models=models.url)
        yield made
        made.end()


def on_server(watched: Watched) -> dict[str, str]:
    assert watched.project.dsn
    rows = run_sql(watched.project.dsn, "SELECT file_path, status FROM lightrag_doc_status")
    assert len(dict(rows)) == len(rows), "a document stands there twice"
    return dict(rows)


@pytest.mark.slow
def test_lightrag_is_fed_while_it_moves(fed: Watched) -> None:
    """Documents before, during and after the apply are all served by Postgres, processed, each once."""
    for number in range(4):
        fed.put(f"before-{number}.md", document(7000 + number, random.Random(number), 0))
    with fed.daemon():
        until(lambda: len(fed.events("ingested")) >= 2, within=90, why=fed.log)
        spec = fed.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("backend: files", "backend: pg"), encoding="utf-8")
        fed.put("during.md", document(7100, random.Random(100), 0))
        fed.ok("apply", "--auto-approve")
        fed.put("after.md", document(7200, random.Random(200), 0))
        until(lambda: len(fed.events("ingested")) == 6 and fed.is_in("idle"), within=90, why=fed.log)
    found = on_server(fed)
    ours = {name: status for name, status in found.items() if name.endswith(".md")}
    assert len(ours) == 6
    assert set(ours.values()) == {"processed"}
    assert fed.look().activity.backend == "pg"
    assert not fed.events("failed")


@pytest.mark.long
def test_lightrag_is_killed_at_any_moment(fed: Watched) -> None:
    """SIGKILL of the daemon at six moments, with one file that changes each time: every document is whole, once."""
    moments = random.Random(3)
    for turn in range(6):
        fed.put(f"k{turn}.md", document(8000 + turn, random.Random(turn), 0))
        fed.put("changing.md", document(8100 + turn, random.Random(100 + turn), 0))
        with fed.daemon():
            time.sleep(moments.uniform(1.5, 6))

    def ours() -> list[tuple[str, str]]:
        rows = json.loads((fed.project.data / "kv_store_doc_status.json").read_text("utf-8")).values()
        return sorted((row["file_path"], row["status"]) for row in rows if row["file_path"].endswith(".md"))

    whole = [(name, "processed") for name in ("changing.md", *(f"k{number}.md" for number in range(6)))]
    with fed.daemon():
        until(lambda: ours() == whole, within=90, why=fed.log)
