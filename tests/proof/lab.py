"""The laboratory: a Postgres of its own, databases made by LightRAG's formats, projects, and a process to torment."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from hybridrag.backends.postgres.embedded import EmbeddedServer
from hybridrag.backends.postgres.embedded_place import free_port
from tests.conftest import EXAMPLE, Project, Server, clean_environment, make_project
from tests.support import big_database
from tests.support.target import run_sql


@dataclass(slots=True)
class Lab:
    """Use as a context manager. `folder` is scratch; `server` is a Postgres that only this run uses."""

    folder: Path = field(init=False)
    server: Server = field(init=False)
    _embedded: EmbeddedServer = field(init=False)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Lab:
        self.folder = Path(tempfile.mkdtemp(prefix="hybridrag-proof-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._embedded = EmbeddedServer(
            self.folder / "postgres", user="tester", database="tester", port=free_port(), password=None
        )
        self._stack.callback(self._end)
        self._embedded.ensure()
        port = self._embedded.observe()["port"]
        assert isinstance(port, int)
        self.server = Server("127.0.0.1", port, "tester", self._embedded.password().reveal())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        data = self._embedded.observe().get("data_dir")
        self._embedded.stop()
        if isinstance(data, str):
            shutil.rmtree(Path(data).parent, ignore_errors=True)

    def restart(self, *, kill: bool) -> None:
        """The server ends, in order or by SIGKILL, and is started again on the same port."""
        if kill:
            pid = self._embedded.observe()["pid"]
            assert isinstance(pid, int)
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.5)
        else:
            self._embedded.stop()
        self._embedded.ensure()
        assert self._embedded.observe()["port"] == self.server.port

    def database_of(self, mb: float, dim: int = 64) -> Path:
        """A folder with a JSON database of about `mb` megabytes; made once, never to be changed."""
        folder = self.folder / f"data-{mb}-{dim}"
        if not folder.exists():
            big_database.build(folder, mb=mb, dim=dim)
        return folder

    @contextlib.contextmanager
    def project(
        self, data: Path = EXAMPLE / "archive", *, dim: int = 64, more: str = ""
    ) -> Iterator[Project]:
        """A project whose database is wanted on a fresh Postgres database. `more` are lines of its database's entry."""
        number = next(self._numbers)
        name = f"proof_{os.getpid()}_{number}"
        run_sql(self.server.dsn("tester"), f"CREATE DATABASE {name}", "SELECT 1")
        made = make_project(self.folder / f"project-{number}", self.server, name, data, dim=dim)
        spec = made.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text() + "".join(f"    {line}\n" for line in more.splitlines()))
        try:
            yield made
        finally:
            for run in [each for each in _running if each.project is made]:
                run.kill()  # an interrupted or broken experiment leaves none behind
            run_sql(self.server.dsn("tester"), f"DROP DATABASE {name} WITH (FORCE)", "SELECT 1")
            shutil.rmtree(made.folder, ignore_errors=True)


_running: list[Torment] = []
_started = itertools.count()


class Torment:
    """One `hybridrag` command in a process group of its own, to be killed, stopped or waited for.

    `through` is a program that starts it, with its arguments.
    """

    def __init__(
        self,
        project: Project,
        *argv: str,
        variables: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> None:
        self.project = project
        number = next(_started)
        self._events = project.folder / f"events-{number}.jsonl"
        self._said = project.folder / f"output-{number}.txt"
        self._output = self._said.open("wb")
        self.process = subprocess.Popen(
            [*through, sys.executable, "-m", "hybridrag", *argv, "--events", str(self._events)],
            cwd=project.folder,
            env=clean_environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )
        _running.append(self)

    def events(self) -> str:
        return self._events.read_text("utf-8") if self._events.exists() else ""

    def said(self) -> str:
        """Its own last words."""
        return self._said.read_text("utf-8")[-2000:]

    def until(self, words: str, seconds: float = 60) -> bool:
        """Wait until an event holds these words; False when the process ended without."""
        return self._wait(lambda: words in self.events(), seconds)

    def until_stopped(self, seconds: float = 60) -> bool:
        """Wait until it has stopped itself (SIGSTOP); False when the process ended without."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        return self._wait(lambda: stat.read_text("utf-8").rpartition(")")[2].split()[0] == "T", seconds)

    def wake(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def _wait(self, true: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if true():
                return True
            if self.process.poll() is not None:
                return true()
            time.sleep(0.002)
        return False

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None while it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def kill(self) -> None:
        """SIGKILL to the whole group: LightRAG's child too."""
        if self in _running:
            _running.remove(self)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self._output.close()
