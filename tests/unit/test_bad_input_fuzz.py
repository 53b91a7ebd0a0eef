"""Files spoiled at random: whatever they hold, the answer is words and a documented exit code, and no record is lost.

The same few examples every time; `-m long` tries thousands of new ones. What is found goes into `tests/corpus`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.backends.json.files import GRAPH_FILE, file_of
from hybridrag.errors import HybridragError
from hybridrag.model.data import BY_NAME, BadRecord, Slot
from hybridrag.planner.planfile import PlanFile
from tests.corpus.mutations import of_json, of_yaml, spoiled
from tests.corpus.world import PLACES, REGISTRY, SPEC, STREAMS, World, contents, make_journal

MANY = pytest.param(3000, id="many", marks=pytest.mark.long)
KEYS = (
    "path",
    "backend",
    "name",
    "type",
    "env",
    "workspace",
    "kept",
    "slots",
    "since",
    "version",
    "content",
    "data",
)
LOOKS = (
    ("validate",), ("plan",), ("status",), ("status", "--json"), ("db", "list"), ("db", "show", "notes"), ("verify", "notes"),
    ("backend", "status", "notes", "--json"), ("history",), ("show", "r1"), ("retire", "notes"),
    ("render", "notes", "--as", "env"), ("watch", "status"),
)  # fmt: skip
OWN_CODES = {"db", "backend"}
"""Commands whose exit codes are a contract of their own; with 1 for what is not found."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "project"
    folder.mkdir()
    return World(folder)


def tried(examples: int, strategy: st.SearchStrategy[Any], attempt: Callable[[Any], None]) -> None:
    """The same examples every time where they are few."""
    given(strategy)(
        settings(
            max_examples=examples,
            derandomize=examples < 1000,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(attempt)
    )()


def answers(world: World, argv: tuple[str, ...], *, name: str | None = None, damaged: bool = False) -> int:
    """Run a command: words, a documented exit code, nothing changed. `name` must be told with exit 3."""
    before = contents(world.folder)
    done = world.run(*argv)
    assert "Traceback" not in done.text
    assert "unexpected error" not in done.text, done.text
    allowed = {0, 2, 3, 4, 5, 6, 7} | ({1} if damaged or argv[0] in OWN_CODES else set())
    assert done.code in allowed, done.text
    if done.code == 3 and name is not None:
        assert name in done.text, done.text
    assert contents(world.folder) == before
    return done.code


@pytest.mark.parametrize("examples", [40, MANY])
@pytest.mark.parametrize("kind", ["spec", "registry"])
def test_a_spoiled_yaml_file(world: World, kind: str, examples: int) -> None:
    path = world.file(PLACES[kind])
    text = SPEC if kind == "spec" else REGISTRY

    def attempt(drawn: tuple[bytes, tuple[str, ...]]) -> None:
        path.write_bytes(drawn[0])
        answers(world, drawn[1], name=path.name)

    tried(examples, st.tuples(of_yaml(text, KEYS), st.sampled_from(LOOKS)), attempt)


@pytest.mark.parametrize("examples", [40, MANY])
def test_a_spoiled_plan_is_never_carried_out(world: World, examples: int) -> None:
    path = world.file(PLACES["plan"])
    assert world.run("plan", "--out", path.name).code == 0
    good = path.read_bytes()

    def signed_again(plan: Any) -> bytes:
        """With a digest that fits, so that only what was planned for is different."""
        with contextlib.suppress(ValueError, TypeError):
            file = PlanFile.model_validate({**plan, "spec_digest": "0" * 64})
            return file.model_copy(update={"plan_digest": file.body_digest()}).model_dump_json().encode()
        return json.dumps(plan).encode()

    def attempt(data: bytes) -> None:
        with contextlib.suppress(ValueError, RecursionError):
            if json.loads(data) == json.loads(good):
                return
        path.write_bytes(data)
        assert answers(world, ("apply", path.name), name=path.name) in (3, 5, 6)

    tried(examples, of_json(good, KEYS, signed_again), attempt)


COLUMNS = st.sampled_from(
    (None, "", -1, 1e308, 2**62, "x", b"\xff\xfe", "\0", "[", float("inf"), '{"a": 1}', "[1]")
)


@pytest.mark.parametrize("examples", [40, MANY])
def test_a_spoiled_journal(world: World, examples: int) -> None:
    """Values of any type in any column, tables that are gone, pages of other bytes; nothing but history may be lost."""
    path = world.file(PLACES["journal"])
    make_journal(path)
    good = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as db:
        tables = [
            row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        ]
        places = [(table, row[1]) for table in tables for row in db.execute(f"PRAGMA table_info({table})")]
    statements = st.one_of(
        st.tuples(st.sampled_from(places).map(lambda place: f"UPDATE {place[0]} SET {place[1]} = ?"), COLUMNS),
        st.tuples(st.sampled_from(tables).map(lambda table: f"DROP TABLE {table}"), st.none()),
        st.tuples(st.sampled_from((0, 1, 99, -1)).map(lambda version: f"PRAGMA user_version = {version}"), st.none()),
    )  # fmt: skip

    def attempt(drawn: tuple[bytes | list[tuple[str, Any]], tuple[str, ...]]) -> None:
        change, argv = drawn
        path.write_bytes(change if isinstance(change, bytes) else good)
        if not isinstance(change, bytes):
            with contextlib.closing(sqlite3.connect(path)) as db:
                for statement, value in change:
                    with contextlib.suppress(sqlite3.Error), db:
                        db.execute(statement, (value,) if "?" in statement else ())
        answers(world, argv, damaged=True)

    tried(examples, st.tuples(spoiled(good) | st.lists(statements, min_size=1, max_size=3), st.sampled_from(LOOKS)), attempt)  # fmt: skip


def examined(world: World, rows: int) -> tuple[HybridragError | None, dict[str, int], list[BadRecord]]:
    """Why it is refused, or what is kept and what is put aside."""
    try:
        return (None, *world.examine(rows))
    except HybridragError as error:
        return error, {}, []


def as_lightrag_counts(path: Path) -> dict[str, int] | None:
    """Records by stream as LightRAG's own libraries load the file; None where they cannot, or it is not its form."""
    try:
        if path.name == GRAPH_FILE:
            graph = nx.read_graphml(path)
            return {"edges": graph.number_of_edges()}
        loaded = json.loads(path.read_bytes().decode("utf-8-sig"))
    except Exception:
        return None
    (stream,) = [name for name in STREAMS if file_of(name) == path.name]
    if BY_NAME[stream].slot is Slot.VECTOR:
        loaded = loaded.get("data") if isinstance(loaded, dict) else None
        return {stream: len(loaded)} if isinstance(loaded, list) else None
    return {stream: len(loaded)} if isinstance(loaded, dict) else None


@pytest.mark.parametrize("examples", [30, MANY])
@pytest.mark.parametrize(
    "name", ["kv_store_text_chunks.json", "kv_store_doc_status.json", "vdb_entities.json", GRAPH_FILE]
)
def test_a_spoiled_file_of_a_database(world: World, name: str, examples: int) -> None:
    """Refused by its name, or every record in it that LightRAG would have is kept, or put aside with its reason."""
    path = world.file(f"notes/{name}")
    good = path.read_bytes()
    strategy = spoiled(good) if name == GRAPH_FILE else of_json(good, KEYS)

    def attempt(drawn: tuple[bytes, int, tuple[str, ...]]) -> None:
        data, rows, argv = drawn
        path.write_bytes(data)
        answers(world, argv)
        refused, kept, bad = examined(world, rows)
        if refused is not None:
            assert refused.exit_code == 4
            assert name in str(refused)
            return
        assert all(each.reason for each in bad)
        for stream, count in (as_lightrag_counts(path) or {}).items():
            found = kept[stream] + sum(each.namespace == stream for each in bad)
            assert found >= count, f"{count - found} of {count} records of {stream} are lost"

    looks = st.sampled_from((("plan",), ("status",), ("backend", "status", "notes")))
    tried(examples, st.tuples(strategy, st.sampled_from((1, 2, 1000)), looks), attempt)
