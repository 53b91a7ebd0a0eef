"""SIGKILL at any moment: the next `apply` finishes the work, and the target is what an uninterrupted run makes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hybridrag
from hybridrag.adapters.lightrag_process import LightRagSchema
from tests.conftest import ROOT, Project, Server, clean_environment, digests, make_project
from tests.support import big_database
from tests.support.places import forget_notes
from tests.support.target import content, run_sql

DIM = 384
BATCH = 100
"""Records a transaction: small, so that a kill meets many of them."""
_numbers = itertools.count()

APPLY = (sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--events", "events.jsonl")


@dataclass(frozen=True)
class Reference:
    """A database, how long an uninterrupted apply takes (seconds), and what it makes of the target."""

    data: Path
    seconds: float
    content: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A place to migrate to: a project and its own database on the server."""

    project: Project
    dsn: str

    @property
    def state(self) -> Path:
        return self.project.folder / "state" / "test"

    def start(self) -> subprocess.Popen[bytes]:
        """`apply` in a process group of its own, the LightRAG child included."""
        (self.project.folder / "events.jsonl").unlink(missing_ok=True)
        with (self.project.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                APPLY,
                cwd=self.project.folder,
                env=clean_environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill_after(self, seconds: float) -> bool:
        """Start, wait, kill; False when it was done before."""
        process = self.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(seconds) == 0, self.said()
            return False
        kill(process)
        return True

    def kill_in(self, step: str, seconds: float) -> None:
        """Start, wait until a step has begun and for some seconds more, kill."""
        process = self.start()
        begun = f'"step_started", "step": "{step}"'
        wait_for(lambda: begun in self.events() or process.poll() is not None)
        time.sleep(seconds)
        kill(process)

    def events(self) -> str:
        file = self.project.folder / "events.jsonl"
        return file.read_text("utf-8") if file.exists() else ""

    def said(self) -> str:
        return (self.project.folder / "output.txt").read_text("utf-8")

    def serving(self) -> str | None:
        """The backend in the registry, read as a stranger would."""
        registry = self.state / "registry.yaml"
        found = re.findall(r"^    backend: (.*)$", registry.read_text() if registry.exists() else "", re.M)
        return found[0] if found else None


def kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def wait_for(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def make_work(folder: Path, server: Server, data: Path) -> Iterator[Work]:
    name = f"kill_{os.getpid()}_{next(_numbers)}"
    run_sql(server.dsn("tester"), f"CREATE DATABASE {name}")
    project = make_project(folder, server, name, data, dim=DIM)
    file = project.folder / "hybridrag.yaml"
    file.write_text(f"{file.read_text()}    migration: {{batch: {BATCH}}}\n")
    yield Work(project, server.dsn(name))
    run_sql(server.dsn("tester"), f"DROP DATABASE {name} WITH (FORCE)")


def make_reference(folder: Path, server: Server, mb: float) -> Reference:
    """Build a database, migrate it without a disturbance, and keep what that gave."""
    data = folder / "data"
    built = big_database.build(data, mb=mb, dim=DIM)
    with contextlib.contextmanager(make_work)(folder / "reference", server, data) as work:
        began = time.perf_counter()
        assert work.start().wait(300) == 0, work.said()
        seconds, found = time.perf_counter() - began, content(work.dsn, "notes")
    assert sum(found[name][0] for name in found if name.startswith("lightrag")) == built.records
    return Reference(data, seconds, found)


@pytest.fixture(scope="module")
def small(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """About 5 MB: 3,200 records, 36 transactions."""
    return make_reference(tmp_path_factory.mktemp("small"), server, 5)


@pytest.fixture(scope="module")
def large(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """About 50 MB: 32,000 records."""
    return make_reference(tmp_path_factory.mktemp("large"), server, 50)


@pytest.fixture
def work(tmp_path: Path, server: Server, small: Reference) -> Iterator[Work]:
    yield from make_work(tmp_path / "project", server, small.data)


def assert_safe(work: Work, reference: Reference) -> None:
    """After a kill: the registry points at the new backend only when all of it is there and verified."""
    if work.serving() is not None:
        assert content(work.dsn, "notes") == reference.content


def assert_finished(work: Work, reference: Reference) -> None:
    """The next apply ends well, the target is the uninterrupted run's, and nothing is left to do."""
    before = digests(work.project.data)
    done = work.project.run("apply", "--auto-approve")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert content(work.dsn, "notes") == reference.content
    assert work.serving() == "pg"
    assert steps_left(work.project) == []
    assert digests(work.project.data) == before


def steps_left(project: Project) -> list[str]:
    """The steps that `plan` would show now."""
    env = hybridrag.load(project.folder / "hybridrag.yaml")
    return [step.id for step in asyncio.run(hybridrag.plan(env)).steps]


# --- at random moments ---


def moments(count: int, seed: int) -> list[tuple[float, ...]]:
    """Random parts of a run's duration, one from each of `count` stretches; every second one is killed twice."""
    rng = random.Random(seed)
    first = [(number + rng.random()) / count for number in range(count)]
    return [(part, rng.random()) if number % 2 else (part,) for number, part in enumerate(first)]


def names(parts: tuple[float, ...]) -> str:
    return " then ".join(f"{part:.0%}" for part in parts)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(parts, marks=[pytest.mark.slow] if number % 2 else [], id=names(parts))
        for number, parts in enumerate(moments(6, seed=20))
    ],
)
def test_a_killed_apply_is_finished_by_the_next(
    work: Work, small: Reference, parts: tuple[float, ...]
) -> None:
    """Killed once or twice in a row, at random moments: no record lost or doubled, every index there."""
    for part in parts:
        killed = work.kill_after(part * small.seconds)
        assert killed or part > 0.5 or part != parts[0]
        assert_safe(work, small)
    assert_finished(work, small)


@pytest.mark.long
@pytest.mark.parametrize("parts", moments(20, seed=50), ids=names)
def test_a_killed_apply_of_50_mb_is_finished_by_the_next(
    tmp_path: Path, server: Server, large: Reference, parts: tuple[float, ...]
) -> None:
    """The same, twenty times, on a 50 MB database."""
    with contextlib.contextmanager(make_work)(tmp_path / "project", server, large.data) as work:
        for part in parts:
            killed = work.kill_after(part * large.seconds)
            assert killed or part > 0.5 or part != parts[0]
            assert_safe(work, large)
        assert_finished(work, large)


@pytest.mark.long  # the short proof kills at every step in CI
@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.015, 0.05])
@pytest.mark.parametrize("step", ["validate", "pause", "migrate", "verify", "switch", "resume"])
def test_a_kill_inside_each_step_is_survived(work: Work, small: Reference, step: str, seconds: float) -> None:
    """Right after a step began, where the short ones have their narrow places."""
    work.kill_in(f"{step}.notes", seconds)
    assert_safe(work, small)
    assert_finished(work, small)


# --- at moments that no clock can hit ---


def test_what_a_kill_leaves_around_the_switch_is_put_right(work: Work, small: Reference) -> None:
    """Killed between the target's mark and the notes of the places, or before the pause was released: only that is left."""
    work.project.ok("apply", "--auto-approve")

    def left_by_a_kill() -> None:
        with sqlite3.connect(work.state / "journal.db") as db:
            db.execute("INSERT INTO pause VALUES ('notes', 'killed-run', 'fingerprint', 0)")
            db.execute("UPDATE run SET outcome = NULL, finished = NULL")
        db.close()

    (work.state / "registry.yaml").unlink()
    forget_notes(work.project)
    left_by_a_kill()
    assert steps_left(work.project) == ["switch.notes", "resume.notes"]
    assert_finished(work, small)
    left_by_a_kill()
    assert steps_left(work.project) == ["resume.notes"]
    assert "paused" in work.project.ok("status")
    assert_finished(work, small)
    assert "paused" not in work.project.ok("status")


def test_a_half_made_schema_is_completed(work: Work, small: Reference) -> None:
    """Killed between LightRAG's CREATE TABLE and the indexes that it makes only then: none of them stays out."""
    world = hybridrag.load(work.project.folder / "hybridrag.yaml").world
    item = world.database("notes")
    asyncio.run(LightRagSchema().create(world.store(item, "pg").selection(), item.embedding))
    made = run_sql(
        work.dsn,
        "SELECT indexname FROM pg_indexes WHERE tablename LIKE 'lightrag_vdb%' AND indexname NOT LIKE '%_pk'",
    )
    assert len(made) >= 9
    run_sql(work.dsn, *(f'DROP INDEX "{name}"' for (name,) in made), "SELECT 1")
    assert_finished(work, small)


def test_only_the_leader_is_killed_and_its_lightrag_child_dies_too(work: Work, small: Reference) -> None:
    """The kernel's out-of-memory killer takes one process; a child that lives on would write behind our back."""
    process = work.start()
    wait_for(lambda: children(process.pid) or process.poll() is not None)
    found = children(process.pid)
    time.sleep(0.3)  # it imports LightRAG now, and needs a second more
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert found
    try:
        wait_for(lambda: not any(is_alive(pid) for pid in found), seconds=5)
    finally:
        kill(process)
    assert_finished(work, small)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# --- the lease ---


def test_of_two_applies_one_runs_and_the_other_names_it(work: Work, small: Reference) -> None:
    """The second one ends with 9, saying who holds the lease, and disturbs nothing."""
    first = work.start()
    wait_for(lambda: '"step_started"' in work.events())
    second = work.project.run("apply", "--auto-approve")
    assert second.returncode == 9, second.stderr
    assert f"pid {first.pid} on " in second.stderr
    assert "→" in second.stderr
    assert first.wait(60) == 0, work.said()
    assert content(work.dsn, "notes") == small.content
    assert steps_left(work.project) == []


# --- the databases that are killed over ---

OPENED = """
import asyncio, sys
from pathlib import Path
from lightrag import LightRAG, QueryParam
from tests.support.big_database import counts
from tests.support.make_database import arguments

async def main(folder, docs, dim):
    rag = LightRAG(working_dir=folder, **arguments(dim))
    await rag.initialize_storages()
    expected = counts(docs)
    for name in ("full_docs", "text_chunks", "llm_response_cache", "full_entities", "full_relations",
                 "entity_chunks", "relation_chunks", "doc_status"):
        store = rag.doc_status if name == "doc_status" else getattr(rag, name)
        assert len(store._data) == expected[name], name
    assert len(await rag.chunk_entity_relation_graph.get_all_nodes()) == expected["nodes"]
    assert len(await rag.chunk_entity_relation_graph.get_all_edges()) == expected["edges"]
    for name, store in (("chunks", rag.chunks_vdb), ("entities", rag.entities_vdb), ("relationships", rag.relationships_vdb)):
        assert len(await store._get_client()) == expected[name], name
    param = QueryParam(mode="mix", hl_keywords=["archive"], ll_keywords=["Нина"], enable_rerank=False)
    data = (await rag.aquery_data("Who keeps the archive?", param=param))["data"]
    assert data["entities"] and data["relationships"] and data["chunks"]
    await rag.finalize_storages()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
print("opened")
"""


def test_the_databases_of_these_tests_are_ones_that_lightrag_opens(tmp_path: Path) -> None:
    """LightRAG finds every record of a generated database, and answers from it; the same seed gives the same bytes."""
    built = big_database.build(tmp_path / "one", docs=12, dim=96)
    assert big_database.build(tmp_path / "two", docs=12, dim=96) == built
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    done = subprocess.run(
        [sys.executable, "-c", OPENED, str(tmp_path / "two"), "12", "96"],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("opened\n"), done.stderr[-3000:]
