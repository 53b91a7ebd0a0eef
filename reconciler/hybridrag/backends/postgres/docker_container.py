"""The container itself: how it is made, and how it is started, whatever state it is in.

Called by `docker_server.py`, which decides that and when. It must not wait for Postgres, and must not put
the password anywhere but into the file that Postgres reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hybridrag.errors import BackendUnavailable
from hybridrag.model.secret import Secret

from .docker_engine import explanation, put_private
from .docker_facts import ADDRESS, DATA, RESTART, SUPERUSER, Actual, Wanted, port_taken

STOP_S = 60
_SICK_S = 10
_SECRET = PurePosixPath("/var/lib/hybridrag/postgres-password")
_SECOND = 1_000_000_000

# As for the embedded server; here the container's memory and /dev/shm are the limits.
_SERVER = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "client_connection_check_interval": "2s",
}
# Sorts by bytes, so that an index survives the change to an image with another C library.
_INITDB = "--encoding=UTF8 --locale=C --lc-ctype=C.UTF-8 --data-checksums --auth-local=trust --auth-host=scram-sha-256"
_COMMAND = ["postgres", *(word for name, value in _SERVER.items() for word in ("-c", f"{name}={value}"))]


SETTINGS = " ".join([*_COMMAND, _INITDB])
"""Of every container we make; a change here means a replacement of those there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a container is made with that is not compared: the first user and database, and the picked port."""

    user: str
    database: str
    port: int


def create(client: Any, name: str, wanted: Wanted, form: Form, password: Secret) -> None:
    """Makes the container and its volume, with the password in it; nothing is started."""
    from docker.errors import APIError

    # An existing one stays as it is.
    client.create_volume(wanted.volume, labels={**wanted.owner, SUPERUSER: form.user})
    try:
        client.create_container(
            wanted.image,
            _COMMAND,
            name=name,
            labels=wanted.labels,
            ports=[(5432, "tcp")],
            environment={
                "POSTGRES_USER": form.user,
                "POSTGRES_DB": form.database,
                "POSTGRES_PASSWORD_FILE": str(_SECRET),
                "POSTGRES_HOST_AUTH_METHOD": "scram-sha-256",
                "POSTGRES_INITDB_ARGS": _INITDB,
                "PGDATA": DATA,
            },
            healthcheck={
                # TCP: the server that only sets the database up has no port.
                "test": ["CMD", "pg_isready", "-q", "-h", ADDRESS, "-U", form.user, "-d", "postgres"],
                "interval": 5 * _SECOND,
                "timeout": 5 * _SECOND,
                "retries": 6,
                "start_period": 60 * _SECOND,
            },
            host_config=client.create_host_config(
                binds=[f"{wanted.volume}:{DATA}"],
                port_bindings={5432: (ADDRESS, form.port)},
                restart_policy={"Name": RESTART},
                mem_limit=wanted.memory or None,
                memswap_limit=wanted.memory or None,
                shm_size=wanted.shm_size,
            ),
        )
    except APIError as error:
        if error.status_code == 409:
            raise BackendUnavailable(
                f'somebody else has just made a container "{name}": {explanation(error)}',
                hint="hybridrag plan",
            ) from error
        raise
    tell_password(client, name, password)


def tell_password(client: Any, name: str, password: Secret) -> None:
    """Puts the password where the container's first start reads it; again and again is fine."""
    put_private(client, name, _SECRET, password.reveal())


def update(client: Any, wanted: Wanted) -> None:
    """What a container takes up while it runs."""
    # Memory with and without swap at once: the one must never be below the other.
    limits = {"mem_limit": wanted.memory, "memswap_limit": wanted.memory} if wanted.memory else {}
    client.update_container(wanted.container, restart_policy={"Name": RESTART}, **limits)


def start(client: Any, wanted: Wanted, actual: Actual) -> None:
    """Starts, unpauses or restarts it; a running one stays as it is."""
    from docker.errors import APIError

    try:
        if actual.status == "paused":
            client.unpause(actual.id)
        elif actual.state in ("unhealthy", "restarting"):
            client.restart(actual.id, timeout=_SICK_S)
        elif actual.status != "running":
            client.start(actual.id)
    except APIError as error:
        why = explanation(error)
        if "port is already allocated" not in why and "address already in use" not in why:
            raise
        change = port_taken(wanted, actual.port or 0, "another program")
        raise BackendUnavailable(change.problem or why, hint=change.hint) from error
