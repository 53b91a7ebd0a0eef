"""A throw-away embedded Postgres and project for measurements, and how a result is shown and kept."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.postgres.backend import PostgresBackend
from hybridrag.backends.postgres.embedded import EmbeddedServer
from hybridrag.backends.postgres.spec import PostgresSpec
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.model.selection import Embedding

RESULTS = Path(__file__).with_name("results")
SPEC = """\
version: 1
environment: bench
backends:
  files: {{type: json}}
  pg: {{type: postgres, provision: {{driver: embedded}}}}
databases:
  notes:
    path: {data}
    backend: pg
    embedding: {{model: {model}, dim: {dim}}}
"""


class Scratch:
    """Context manager: one server, databases in it by name, everything removed at the end."""

    def __enter__(self) -> Scratch:
        self._folder = tempfile.TemporaryDirectory(prefix="hybridrag-bench-")
        self.folder = Path(self._folder.name)
        self.folder.chmod(
            0o711
        )  # as root, the servers run under another account; their data shall stay in here
        self._server = EmbeddedServer(
            self.folder / "pg", user="bench", database="bench", port=None, password=None
        )
        self._server.ensure()
        port = self._server.observe()["port"]
        assert isinstance(port, int)
        self._port = port
        os.environ["BENCH_PASSWORD"] = self._server.password().reveal()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()
        self._folder.cleanup()

    def dsn(self, database: str) -> str:
        return f"postgresql://bench:{os.environ['BENCH_PASSWORD']}@127.0.0.1:{self._port}/{database}"

    async def _admin(self, statement: str) -> None:
        opened = await asyncpg.connect(self.dsn("bench"))
        try:
            await opened.execute(statement)
        finally:
            await opened.close()

    async def database(self, name: str) -> str:
        await self._admin(f"CREATE DATABASE {name}")
        return name

    async def drop(self, name: str) -> None:
        await self._admin(f"DROP DATABASE {name} WITH (FORCE)")
        await self._admin("CHECKPOINT")

    def store(self, database: str, embedding: Embedding) -> PostgresStore:
        spec = PostgresSpec.model_validate(
            {"type": "postgres", "port": self._port, "user": "bench", "database": database,
             "password": {"env": "BENCH_PASSWORD"}}
        )  # fmt: skip
        secrets = Secrets(os.environ, self.folder)
        backend = PostgresBackend(
            "pg", spec, environment="bench", state=self.folder, secrets=secrets, schema=LightRagSchema()
        )
        return backend.store("", "notes", embedding)

    def whole_command(self, data: Path, embedding: Embedding) -> tuple[float, float]:
        """(seconds, peak MB) of `hybridrag apply` from nothing, server and process starts included.

        The peak is the sum of our process and its children (LightRAG's among them, the server not), each with its share
        of common pages (PSS), sampled every 20 ms; where the system does not tell it, the largest process alone.
        """
        folder = Path(tempfile.mkdtemp(prefix="project-", dir=self.folder))
        folder.chmod(0o711)
        # A move leaves a note in the folder; the next one comes from nothing again.
        shutil.copytree(data, folder / "data", ignore=shutil.ignore_patterns(".hybridrag"))
        (folder / "hybridrag.yaml").write_text(
            SPEC.format(data=folder / "data", model=embedding.model, dim=embedding.dim)
        )
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--quiet"], cwd=folder
        )
        sampled = 0.0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            sampled = max(sampled, _memory_mb(process.pid))
            time.sleep(0.02)
        _, status, usage = ended
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"hybridrag apply ended with {process.returncode}")
        subprocess.run(
            [sys.executable, "-m", "hybridrag", "backend", "stop", "pg", "-q"], cwd=folder, check=True
        )
        shutil.rmtree(folder)
        return seconds, sampled or usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1e6)


def _memory_mb(pid: int) -> float:
    """PSS of a process and of its descendants that are no server; 0 where /proc does not tell."""
    total = 0.0
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() in ("postgres", "pg_ctl", "initdb"):
            return 0.0
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(_memory_mb(int(child)) for child in (task / "children").read_text().split())
    except OSError:
        return total
    return total


def table(lines: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def record(name: str, result: dict[str, Any], *, published: str | None = None) -> None:
    """Append one JSON line to `benchmarks/results/<name>.local.json`, or to the committed `<published>.json`."""
    RESULTS.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    line = {"date": time.strftime("%Y-%m-%d"), "machine": machine, **result}
    with (RESULTS / f"{published or f'{name}.local'}.json").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
