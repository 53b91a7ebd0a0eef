"""Logging in to a Postgres in a container: waiting for it, its role, its database, its extension.

Called by `docker_server.py`, with the container running. No password may come into an argument list, an
environment, a log or an error here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import asyncpg

from hybridrag.errors import BackendUnavailable
from hybridrag.model.secret import Secret

from .client import connection
from .docker_engine import put_private, run_inside
from .docker_facts import ADDRESS
from .endpoint import Endpoint
from .failures import TRANSIENT
from .spec import TlsSpec

_PAUSE_S = 0.1
# Docker's proxy takes a connection before the server listens, and then drops it.
_PASSING = (*TRANSIENT, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)
_SCRIPT = PurePosixPath("/var/lib/hybridrag-admit/role.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who we are on which port."""

    name: str
    port: int
    user: str
    database: str
    password: Secret

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(
            name=self.name,
            hosts=((ADDRESS, self.port),),
            user=self.user,
            database=self.database,
            password=lambda: self.password,
            tls=TlsSpec(mode="prefer"),
        )


class Refused(BackendUnavailable):
    """The server takes connections, but not this user with this password."""


class Unready(BackendUnavailable):
    """The server did not take connections in the given time."""


def prepare(login: Login, *, alive: Callable[[], None], wait_s: float) -> None:
    """Returns when `login` works, its database exists and pgvector is in it.

    `alive` is called before each try and raises when waiting is in vain. Raises Refused for a wrong
    password or user, Unready when the time is over, BackendUnavailable for anything else.
    """
    deadline = time.monotonic() + wait_s
    while True:
        alive()
        try:
            asyncio.run(_prepare(login.endpoint))
            return
        except BackendUnavailable as error:
            cause = error.__cause__
            if isinstance(
                cause, (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)
            ):
                raise Refused(error.what, hint=error.hint) from None
            if isinstance(cause, asyncpg.InvalidCatalogNameError):
                asyncio.run(_create_database(login))
            elif not isinstance(cause, _PASSING):
                raise
            elif time.monotonic() > deadline:
                raise Unready(f"{error.what} (waited {wait_s:g} s)", hint=error.hint) from error
        time.sleep(_PAUSE_S)


async def _prepare(endpoint: Endpoint) -> None:
    async with connection(endpoint, purpose="provision", read_only=False) as opened:
        if await opened.fetchval("SELECT 1 FROM pg_extension WHERE extname = 'vector'"):
            return
        if await opened.fetchval("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
            await opened.execute("CREATE EXTENSION IF NOT EXISTS vector")
        # Without it nothing is wrong with the container: observing tells what is missing in the image.


async def _create_database(login: Login) -> None:
    async with connection(
        replace(login, database="postgres").endpoint, purpose="provision", read_only=False
    ) as opened:
        try:
            await opened.execute(f"CREATE DATABASE {_identifier(login.database)}")
        except asyncpg.DuplicateDatabaseError:
            return


def admit(client: Any, container: str, login: Login, superusers: Sequence[str]) -> None:
    """Makes the user a superuser with this password, from inside the container, as the first of `superusers` there is.

    For a container of ours only: the spec names a new user or password, or the password file was lost.
    """
    name, secret = _identifier(login.user), _literal(login.password.reveal())
    script = (
        # Nothing of this may come into the server's log.
        "SET log_statement = none; SET log_min_duration_statement = -1; SET log_min_error_statement = panic;\n"
        f"SELECT 'CREATE ROLE ' || quote_ident({_literal(login.user)}) WHERE NOT EXISTS "
        f"(SELECT FROM pg_roles WHERE rolname = {_literal(login.user)}) \\gexec\n"
        "SET password_encryption = 'scram-sha-256';\n"
        f"ALTER ROLE {name} SUPERUSER LOGIN PASSWORD {secret};\n"
    )
    psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", str(_SCRIPT), "-U"]
    put_private(client, container, _SCRIPT, script)
    try:
        # What it prints may quote the script, so it is not shown.
        if not any(run_inside(client, container, [*psql, superuser])[0] == 0 for superuser in superusers):
            raise BackendUnavailable(
                f'the Postgres in container "{container}" does not let user "{login.user}" in, and none of '
                f"{', '.join(superusers)} may change that from inside",
                hint=f"docker exec {container} psql -U {superusers[0]} -d postgres must work; then: hybridrag apply",
            )
    finally:
        run_inside(client, container, ["rm", "-rf", str(_SCRIPT.parent)])


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
