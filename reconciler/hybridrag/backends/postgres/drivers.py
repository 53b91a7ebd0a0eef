"""Which driver provisions a server: the only list of them. Called by `backend.py`."""

from __future__ import annotations

from pathlib import Path

from hybridrag.model.secret import Secret

from .docker_server import DockerServer
from .driver import ServerDriver
from .embedded import EmbeddedServer
from .spec import DockerProvision, PostgresSpec


def driver_of(
    spec: PostgresSpec, *, state: Path, environment: str, backend: str, password: Secret | None
) -> ServerDriver | None:
    """The server that `provision` declares; None for an external one. `state` is the environment's folder."""
    declared = spec.provision
    if declared is None:
        return None
    home = state / declared.driver / backend
    if isinstance(declared, DockerProvision):
        return DockerServer(
            home,
            declared,
            environment=environment,
            backend=backend,
            port=spec.declared_port,
            password=password,
            user=spec.user,
            database=spec.database,
        )
    return EmbeddedServer(home, user=spec.user, database=spec.database, port=spec.port, password=password)
