"""What the Docker tests share: servers that are cleared away, logins, and containers made by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from hybridrag.backends.postgres.docker_server import DockerServer
from hybridrag.backends.postgres.spec import DockerProvision
from hybridrag.model.secret import Secret
from tests.support.docker.engine import Engine

_numbers = itertools.count()


@dataclass
class Case:
    """One test's corner of the engine: its own names, and whatever it made gone afterwards."""

    engine: Engine
    folder: Path
    image: str
    name: str = field(default_factory=lambda: f"hybridrag-test-{os.getpid()}-{next(_numbers)}")

    @property
    def volume(self) -> str:
        return f"{self.name}-data"

    def server(self, *, home: str = "home", password: str | None = None, **how: Any) -> DockerServer:
        """The declared server; what is not given has its default."""
        given = {
            "environment": "test",
            "backend": "pg",
            "user": "hybridrag",
            "database": "hybridrag",
            "port": None,
            "wait_s": 30.0,
        }
        given |= {key: how.pop(key) for key in tuple(how) if key in given}
        declared = DockerProvision.model_validate(
            {"driver": "docker", "image": self.image, "container": self.name, "volume": self.volume, **how}
        )
        secret = None if password is None else Secret(password)
        return DockerServer(self.folder / home, declared, password=secret, **given)  # type: ignore[arg-type]

    @staticmethod
    def labels(server: DockerServer) -> list[str]:
        """Arguments of `docker run` that make a container by hand one of that server's."""
        return [f"--label={name}={value}" for name, value in server._wanted.labels.items()]

    def docker(self, *argv: str, check: bool = True) -> str:
        return self.engine.docker(*argv, check=check)

    def inspect(self, name: str | None = None) -> Any:
        return json.loads(self.docker("inspect", name or self.name))[0]

    def by_hand(self, *argv: str, how: str = "run", detach: bool = True) -> str:
        """`docker run` (or create) as somebody would type it."""
        more = ["-d"] if detach and how == "run" else []
        return self.docker(how, *more, "--name", self.name, *argv)

    def exists(self) -> bool:
        return bool(self.docker("ps", "-aq", "--filter", f"name={self.name}"))

    def clear(self) -> None:
        for container in self.docker("ps", "-aq", "--filter", f"name={self.name}").split():
            self.docker("rm", "-fv", container, check=False)
        for volume in self.docker("volume", "ls", "-q", "--filter", f"name={self.name}").split():
            self.docker("volume", "rm", volume, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def ask(server: DockerServer, *statements: str, password: str | None = None, patience_s: float = 0.0) -> Any:
    """Logs in as an application does; the answer to the last statement."""

    async def go() -> Any:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=server.port(),
            user=server._user,
            database=server._database,
            password=server.password().reveal() if password is None else password,
            timeout=5,
        )
        try:
            return [await connection.fetchval(statement) for statement in statements][-1]
        finally:
            await connection.close()

    def once() -> Any:
        return asyncio.run(go())

    return eventually(once, patience_s) if patience_s else once()


def eventually(look: Callable[[], Any], patience_s: float = 20.0) -> Any:
    """The first true answer without an error."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if answer := look():
                return answer
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
