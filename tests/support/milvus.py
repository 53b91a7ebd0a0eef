"""One Milvus server for a whole test run, and a fresh backend on it for each test."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.milvus.backend import MilvusBackend
from hybridrag.backends.milvus.client import GRPC, driver
from hybridrag.backends.milvus.spec import MilvusSpec

_numbers = itertools.count()


class MilvusServer:
    """The real `milvus-lite server` on a free port of 127.0.0.1; stopped and started again where a test wants it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = Path(sys.executable).with_name("milvus-lite")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "server", "--data-dir", self._folder / "data", "--host", "127.0.0.1", "--port", str(self._port)],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self._folder / "log").read_text("utf-8", "replace")[-2000:])

    def kill(self) -> None:
        """As the out-of-memory killer would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self, database: str) -> Any:
        """A client of a test's own."""
        return driver().MilvusClient(
            uri=self.uri, db_name=database, timeout=10, dedicated=True, grpc_options=GRPC
        )

    def backend(self, database: str, **more: Any) -> MilvusBackend:
        declared = {"type": "milvus", "uri": self.uri, "database": database, **more}
        spec = MilvusSpec.model_validate(declared)
        return MilvusBackend(
            "vectors", spec, secrets=Secrets(dict(os.environ), Path()), schema=LightRagSchema()
        )


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """The run's server; tests that need one skip where it is not installed."""
    for package in ("milvus_lite", "pymilvus"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'hybridrag-reconciler[test]'")
    folder = tmp_path_factory.mktemp("milvus")
    server = MilvusServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def vector_database(milvus: MilvusServer) -> str:
    """Name of a fresh, empty database on the run's server."""
    name = f"t{next(_numbers)}"
    milvus.client("default").create_database(name)
    return name
