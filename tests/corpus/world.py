"""A small project on no server, whose files are spoiled one at a time, and the command line called in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import hybridrag
from hybridrag.backends.json.store import JsonReader
from hybridrag.cli import main
from hybridrag.journal import Journal, WatchState
from hybridrag.journal.quarantine import line
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.progress import Meter
from hybridrag.model.data import NAMESPACES, BadRecord
from hybridrag.model.events import Progress
from tests.conftest import clean_environment

CORPUS = Path(__file__).parent
GOOD = CORPUS / "database" / "good"
STREAMS = tuple(namespace.name for namespace in NAMESPACES)
SPEC = """\
version: 1
environment: test
backends:
  files: {type: json}
  pg: {type: postgres, provision: {driver: embedded}}
  ext: {type: postgres, host: 127.0.0.1, port: 1, user: u, database: d, password: {env: PW}}
databases:
  notes:
    path: ./notes
    backend: pg
    embedding: {model: m, dim: 4, function: "embedding.py:embed"}
    source: {type: filesystem, path: ./sources}
    writer: {kind: watcher}
models: {llm: {binding: openai, model: m, api_key: {env: PW}}}
"""
REGISTRY = """\
version: 1
databases:
  notes:
    name: notes
    path: ./notes
    backend: pg
    backend_type: postgres
    backend_config: {host: 127.0.0.1, port: 1, workspace: notes}
    kept:
    - {backend: files, backend_type: json, slots: [kv, doc_status, vector, graph], since: '2026-01-01T00:00:00+00:00'}
"""
PLACES = {
    "spec": "hybridrag.yaml",
    "plan": "saved.plan",
    "registry": "state/test/registry.yaml",
    "journal": "state/test/journal.db",
}
"""Which file a case spoils, where it does not say so."""
LONGEST_S = 20


@dataclass(frozen=True)
class Said:
    """How a command ended: its exit code, and everything it printed."""

    code: int
    text: str


class World:
    """The project; `file` gives its files by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(GOOD, folder / "notes")
        (folder / "sources").mkdir()
        (folder / "hybridrag.yaml").write_text(SPEC, encoding="utf-8")
        (folder / ".env").write_text("PW=x\n", encoding="utf-8")

    def file(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, *argv: str) -> Said:
        """`hybridrag …` in the project's folder and this process; what nobody foresaw is an error of the test."""
        kept = clean_environment()
        with _inside(self.folder), _at_most():
            done = CliRunner().invoke(main, list(argv), env={name: kept.get(name) for name in os.environ})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.output)

    def examine(self, rows: int = 1000) -> tuple[dict[str, int], list[BadRecord]]:
        """Records that Postgres would hold, by stream, and those put aside. Raises HybridragError."""
        env = hybridrag.load(self.folder / "hybridrag.yaml")
        target = env.world.store(env.world.database("notes"), "pg")
        meter = Meter(lambda event: None, "validate.notes", "examining", 40, totals=dict.fromkeys(STREAMS, 4))
        bad: list[BadRecord] = []

        def keep(record: BadRecord) -> None:
            line(record)
            bad.append(record)

        with _at_most():
            tables, _ = asyncio.run(
                examine_source(JsonReader(self.folder / "notes"), target, STREAMS, rows, meter, keep)
            )
        return {name: table.records for name, table in tables.items()}, bad


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _at_most() -> Iterator[None]:
    """A hang is a failure, not a hang of the tests."""

    def end(*_: object) -> None:
        raise TimeoutError(f"it did not end within {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make_journal(path: Path) -> None:
    """One as a run left it that was killed in the middle of a copy, in one file."""
    with Journal(path) as journal:
        journal.begin_run("r1", "me", "s" * 64, "o" * 64)
        journal.begin_step("r1", "migrate.notes")
        journal.put_progress(
            "notes",
            "r1",
            Progress(step="migrate.notes", phase="copying", records=1, total=4, bytes=9, rate=1.0, eta_s=3.0),
        )
        journal.open_pause("notes", "r1", None)
    _one_file(path)


def make_watch_state(path: Path) -> None:
    """One of a daemon that runs and ingests."""
    with WatchState(path) as state:
        state.ask_pause("user", ttl_s=None)
        with state.transaction() as db:
            db.execute("INSERT INTO activity VALUES (1, 'idle', '', 1, 2, 'files', 1, 2, 3, 'none')")
            db.execute("INSERT INTO size VALUES (strftime('%s'), 'vdb_chunks.json', 5)")
            db.execute(
                "INSERT INTO lease (id, owner, host, pid, process, acquired, expires, fence) "
                "VALUES (1, 'me', ?, ?, '', 1, 9e9, 1)",
                (os.uname().nodename, os.getpid()),
            )
    _one_file(path)


def _one_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")


def spoil(world: World, kind: str, case: dict[str, Any]) -> Path:
    """Put what the case says into its place."""
    path = world.file(case.get("in", PLACES.get(kind)))
    if kind == "journal":
        (make_watch_state if "watch" in path.parts else make_journal)(path)
    if "make" in case:
        path.unlink(missing_ok=True)
        _make(path, case["make"])
    elif "text" in case:
        path.write_text(case["text"], encoding="utf-8")
    elif "bytes" in case:
        path.write_bytes(case["bytes"])
    elif "file" in case:
        shutil.copyfile(CORPUS / kind / case["file"], path)
    for old, new in case.get("edit", ()):
        text = path.read_text("utf-8") if path.exists() else REGISTRY
        assert old in text, f"{old!r} does not stand in {path.name}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
    _change_bytes(path, case)
    return path


def _make(path: Path, what: str) -> None:
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to({"loop": path.name, "link": "nowhere", "endless": "/dev/zero"}[what])


def _change_bytes(path: Path, case: dict[str, Any]) -> None:
    if "sql" in case:
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.executescript(case["sql"])
    if "cut" in case:
        os.truncate(path, case["cut"])
    if "zero" in case:
        start, count = case["zero"]
        whole = path.read_bytes()
        path.write_bytes(whole[:start] + bytes(count) + whole[start + count :])


def contents(folder: Path) -> dict[str, Any]:
    """Every file by name, with what it holds; of pipes, folders and links their kind."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }
