"""A user's lightrag-server: a folder with its `.env`, and two commands that start and stop it, as people write them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import DIM, Project
from tests.support.model_server import SITE, ModelServer

SERVER = Path(sys.executable).parent / "lightrag-server"
START = """\
import os, pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[1])
kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "POSTGRES", "LIGHTRAG", "HYBRIDRAG"))}
with (folder / "server.txt").open("ab") as log:
    process = subprocess.Popen(sys.argv[2:], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                               env={**kept, "PYTHONPATH": str(folder / "site"), "no_proxy": "*"})
(folder / "pid").write_text(str(process.pid))
(folder / "starts").open("a").write("x")
"""
STOP = """\
import os, pathlib, signal, sys
os.kill(int((pathlib.Path(sys.argv[1]) / "pid").read_text()), signal.SIGTERM)
"""
ENV = """\
# my server
LLM_BINDING=openai      # the scripted one
LLM_BINDING_HOST={models}
LLM_BINDING_API_KEY='no"ne'
LLM_MODEL="scripted"

export EMBEDDING_BINDING=openai
EMBEDDING_BINDING_HOST = {models}
EMBEDDING_BINDING_API_KEY=none
EMBEDDING_MODEL=hash-emb
EMBEDDING_DIM={dim}
HOST=127.0.0.1
PORT={port}
# where it keeps things
LIGHTRAG_KV_STORAGE=JsonKVStorage  # the default
WORKING_DIR=..
WORKSPACE=notes
"""


@dataclass
class Served:
    """The server of one project; `url` is where it answers while it runs."""

    project: Project
    models: ModelServer
    url: str
    key: str = ""

    @property
    def folder(self) -> Path:
        return self.project.folder / "server"

    @property
    def env(self) -> str:
        return (self.folder / ".env").read_text("utf-8")

    @property
    def starts(self) -> int:
        return len((self.folder / "starts").read_text())

    def log(self) -> str:
        return (self.folder / "server.txt").read_text("utf-8", "replace")[-3000:]

    def start(self) -> None:
        os.system(" ".join(f"'{word}'" for word in self._commands()["start"]))  # noqa: S605 - as a user would
        self.wait()

    def wait(self, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while self.call("/health", quiet=True) is None:
            assert time.monotonic() < until, self.log()
            time.sleep(0.2)

    def _commands(self) -> dict[str, list[str]]:
        run = [sys.executable, str(self.folder / "start.py"), str(self.folder), str(SERVER)]
        return {"start": run, "stop": [sys.executable, str(self.folder / "stop.py"), str(self.folder)]}

    def declare(self, **more: Any) -> None:
        """The spec says how it is stopped and started."""
        spec = self.project.folder / "hybridrag.yaml"
        wanted = yaml.safe_load(spec.read_text("utf-8"))
        wanted["databases"]["notes"]["writer"] = {
            "kind": "lightrag-server",
            "url": self.url,
            "env_file": "server/.env",
            **self._commands(),
            "timeout": 90,
            **more,
        }
        spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")

    def want(self, backend: str) -> None:
        spec = self.project.folder / "hybridrag.yaml"
        wanted = yaml.safe_load(spec.read_text("utf-8"))
        wanted["databases"]["notes"]["backend"] = backend
        spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")

    def call(self, path: str, body: dict[str, Any] | None = None, *, quiet: bool = False) -> Any:
        """One request, answered in JSON; with `quiet` None where nobody answers."""
        request = urllib.request.Request(  # noqa: S310 - our own http://127.0.0.1
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "X-API-Key": self.key},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path}: {error.code} {error.read().decode()[:2000]}") from None
        except OSError:
            if quiet:
                return None
            raise

    def upload(self, name: str, text: str) -> None:
        self.call("/documents/text", {"text": text, "file_source": name})

    def counts(self) -> dict[str, int]:
        return {k: v for k, v in self.call("/documents/status_counts")["status_counts"].items() if v}

    def processed(self, number: int, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while (found := self.counts()).get("processed") != number or self.call("/health")["pipeline_active"]:
            assert time.monotonic() < until, (found, self.log())
            time.sleep(0.2)

    def uses(self) -> str:
        return str(self.call("/health")["configuration"]["kv_storage"])

    def kill(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        while self.call("/health", quiet=True) is not None:
            time.sleep(0.1)


def make_served(project: Project, models: ModelServer) -> Served:
    """Its folder beside the database; it is not started yet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    served = Served(project, models, f"http://127.0.0.1:{port}")
    (served.folder / "site").mkdir(parents=True)
    (served.folder / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    (served.folder / "start.py").write_text(START, encoding="utf-8")
    (served.folder / "stop.py").write_text(STOP, encoding="utf-8")
    text = ENV.format(models=models.url, dim=DIM, port=port)
    (served.folder / ".env").write_text(text, encoding="utf-8")
    (served.folder / ".env").chmod(0o640)
    return served
