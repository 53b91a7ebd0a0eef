"""A project that a real daemon feeds, through the small ingester of this folder (`small_ingester`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from hybridrag.journal import look_at_watcher, watch_path
from tests.conftest import ROOT, Project, clean_environment

SMALL = ROOT / "tests" / "support" / "small_ingester"
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Watched:
    """A project, its source, and where the small ingester is steered from and keeps its book."""

    project: Project
    source: Path
    control: Path
    small: bool

    @property
    def variables(self) -> dict[str, str]:
        """For every process of this project; a proxy that is not there keeps LightRAG from looking at the network."""
        folders = ([str(SMALL)] if self.small else []) + os.environ.get("PYTHONPATH", "").split(os.pathsep)
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, folders)),
            "TEST_CONTROL": str(self.control),
            "MODEL_KEY": "sk-not-to-be-seen",
            "HTTPS_PROXY": "http://127.0.0.1:9",
        }

    @property
    def environ(self) -> dict[str, str]:
        return clean_environment(**self.variables)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.project.run(*argv, **self.variables)

    def ok(self, *argv: str) -> str:
        done = self.run(*argv)
        assert done.returncode == 0, (
            f"{argv} -> {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()[-3000:]}"
        )
        return done.stdout

    def status(self) -> dict[str, Any]:
        (watcher,) = json.loads(self.ok("watch", "status", "notes", "--json"))["watchers"]
        return watcher

    @property
    def state(self) -> Path:
        return watch_path(self.project.folder / "state" / "test", "notes")

    def look(self) -> Any:
        """The daemon from outside, without another process; None where there never was one."""
        return look_at_watcher(self.state)

    def is_in(self, *states: str) -> bool:
        """Whether a daemon runs and is in one of these states."""
        look = self.look()
        return bool(look and look.running and look.activity and look.activity.state in states)

    def end(self) -> None:
        """No process of this project stays behind."""
        look = self.look()
        if look is not None and look.pid is not None:
            os.kill(look.pid, signal.SIGKILL)
        until(lambda: not self.writers())

    def spawn(self) -> subprocess.Popen[bytes]:
        """`watch run`, in the background of the test."""
        argv = [sys.executable, "-m", "hybridrag", "watch", "run", "notes"]
        with (self.control / "terminal").open("ab") as log:
            return subprocess.Popen(argv, cwd=self.project.folder, env=self.environ, stdout=log, stderr=log)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.spawn() as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGCONT)
                process.kill()

    def put(self, name: str, text: str) -> str:
        """Write a file of the source as an editor would; its digest."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)
        return hashlib.sha256(text.encode()).hexdigest()

    def wanted(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.source)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.source.rglob("*.md")
        }

    def in_files(self) -> dict[str, str]:
        """Digest by name of what the JSON files say is in."""
        rows = json.loads((self.project.data / "kv_store_doc_status.json").read_text("utf-8")).values()
        found = [
            (row["file_path"], row["content_hash"])
            for row in rows
            if len(row.get("content_hash") or "") == 64
        ]
        assert len(dict(found)) == len(found), "a document stands there twice"
        return dict(found)

    def went_in(self) -> list[str]:
        """Every write of a document, in order: `name digest`."""
        with contextlib.suppress(FileNotFoundError):
            return (self.control / "went-in").read_text("utf-8").splitlines()
        return []

    def log(self) -> str:
        found = self.project.folder / "state" / "test" / "watch" / "notes.log"
        return found.read_text("utf-8") if found.exists() else ""

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log().splitlines()]
        return [line for line in lines if line["event"] == event]

    def writers(self) -> list[int]:
        """Processes of the small ingester that are there for this project."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("TEST_CONTROL") == str(self.control)
                if ours and str(SMALL / "child.py") in (process.info["cmdline"] or []):
                    found.append(process.pid)
        return found


def make_watched(project: Project, control: Path, *, models: str | None = None) -> Watched:
    """The project's database fed from `source`, and wanted where it is.

    By the small ingester; where `models` is the address of a scripted model, by LightRAG.
    """
    control.mkdir(exist_ok=True)
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    known = {"base_url": models, "api_key": {"env": "MODEL_KEY"}} if models else {}
    wanted["models"] = {"llm": {"binding": "openai", "model": "scripted", **known}}
    entry = wanted["databases"]["notes"]
    entry["writer"] = {"kind": "watcher", "interval": "300s", "timeout": 20}
    entry["source"] = {"path": "./source"}
    entry["backend"] = "files"
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    source = project.folder / "source"
    source.mkdir(exist_ok=True)
    return Watched(project, source, control, small=models is None)


def until(true: Callable[[], Any], *, within: float = PATIENCE_S, why: Callable[[], str] = str) -> float:
    """Seconds until something holds."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < within, f"it did not become true within {within} s\n{why()}"
        time.sleep(0.05)
    return time.monotonic() - begun
