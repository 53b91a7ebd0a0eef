"""Connections to Postgres: opened here and nowhere else, with errors in words and secrets kept out of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from hybridrag.errors import BackendUnavailable
from hybridrag.model.secret import Secret

from .spec import TlsSpec

T = TypeVar("T")
CONNECT_TIMEOUT_S = 5.0
TRANSIENT = (
    ConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncio.TimeoutError,
)


FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    asyncio.TimeoutError,
)
"""What a connection and its statements may raise; `explain` has words for each."""
_LOST = (
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.InternalClientError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server is and who we are there. `password` is called at connect time only."""

    name: str
    host: str
    port: int
    user: str
    database: str
    password: Callable[[], Secret | None]
    tls: TlsSpec

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def _tls(spec: TlsSpec) -> ssl.SSLContext | str | bool:
    """asyncpg's `ssl` argument for libpq's modes."""
    if spec.ca is None and spec.cert is None:
        return "prefer" if spec.mode == "prefer" else False if spec.mode == "disable" else spec.mode
    context = ssl.create_default_context(cafile=spec.ca)
    context.check_hostname = spec.mode == "verify-full"
    if spec.mode not in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_NONE
    if spec.cert:
        context.load_cert_chain(spec.cert, spec.key)
    return context


def _is_lost(error: BaseException) -> bool:
    """Whether the server went away; how asyncpg says so depends on what it was doing at that moment."""
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "in progress" in str(error)
    return isinstance(error, _LOST)


def explain(error: BaseException, endpoint: Endpoint) -> BackendUnavailable:
    """The error of a failed connection or statement in words, with the next thing to do."""
    who = f'backend "{endpoint.name}" (postgres at {endpoint.address})'
    if isinstance(error, (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        return BackendUnavailable(
            f'{who} refuses the password of user "{endpoint.user}"',
            hint=f"correct backends.{endpoint.name}.user and .password in the spec, then run hybridrag plan",
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return BackendUnavailable(
            f'{who} has no database "{endpoint.database}"',
            hint=f'create it there (CREATE DATABASE "{endpoint.database}"), or correct backends.{endpoint.name}.database',
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return BackendUnavailable(
            f'user "{endpoint.user}" lacks a right on {who}: {error}',
            hint=f'as an administrator: GRANT ALL ON DATABASE "{endpoint.database}" TO "{endpoint.user}"; '
            f'GRANT ALL ON SCHEMA public TO "{endpoint.user}"',
        )
    if isinstance(error, asyncpg.DiskFullError):
        return BackendUnavailable(
            f"{who} has no space left: {error}", hint="free disk space, then run hybridrag apply"
        )
    if _is_lost(error):
        return BackendUnavailable(
            f"{who} ended the connection in the middle of the work",
            hint="see its log and that it runs (hybridrag status); then hybridrag apply goes on from the checkpoint",
        )
    if isinstance(error, asyncpg.PostgresError):
        return BackendUnavailable(
            f"{who} answered: {error}", hint="see the server's log, then run hybridrag plan"
        )
    if isinstance(error, ssl.SSLError):
        return BackendUnavailable(
            f"{who}: TLS failed: {error.reason or error}",
            hint=f"check backends.{endpoint.name}.tls in the spec",
        )
    if isinstance(error, asyncio.TimeoutError):
        reason = f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    elif isinstance(error, OSError):
        # asyncio's own text repeats the address; a look-up's error numbers are not the system's.
        code = 0 if isinstance(error, socket.gaierror) else error.errno or errno.ECONNREFUSED
        reason = (os.strerror(code) if code else error.strerror or str(error)).lower()
    else:
        reason = str(error) or type(error).__name__
    return BackendUnavailable(
        f"{who} cannot be reached: {reason}",
        hint=f"start the server, or correct backends.{endpoint.name}.host and .port; then run hybridrag plan",
    )


async def _open(endpoint: Endpoint, *, purpose: str, settings: dict[str, str]) -> asyncpg.Connection:
    secret = endpoint.password()
    return await asyncpg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        # An empty password is still ours; None would let asyncpg read PGPASSWORD or ~/.pgpass.
        password=secret.reveal() if secret else "",
        database=endpoint.database,
        ssl=_tls(endpoint.tls),
        timeout=CONNECT_TIMEOUT_S,
        statement_cache_size=0,  # poolers in transaction mode cannot keep prepared statements
        server_settings={"application_name": f"hybridrag {purpose}", "timezone": "UTC", **settings},
    )


@contextlib.asynccontextmanager
async def connection(
    endpoint: Endpoint, *, purpose: str, read_only: bool, patience_s: float = 0.0
) -> AsyncIterator[asyncpg.Connection]:
    """A connection, closed at the end. `read_only` sessions cannot write, whatever is sent through them.

    Transient failures are retried for `patience_s` seconds, with growing random pauses. Raises
    BackendUnavailable for anything that goes wrong with the server, inside the block as well.
    """
    settings = {"default_transaction_read_only": "on"} if read_only else {}
    try:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(TRANSIENT),
            stop=stop_after_delay(patience_s),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            reraise=True,
        )
        opened: asyncpg.Connection = await attempts(_open, endpoint, purpose=purpose, settings=settings)
        try:
            yield opened
        finally:
            with contextlib.suppress(*FAILURES):
                await opened.close(timeout=2)
    except FAILURES as error:
        raise explain(error, endpoint) from error


async def while_open(opened: asyncpg.Connection, operation: Coroutine[Any, Any, T]) -> T:
    """Await a COPY towards the server. If that dies with data on the way, asyncpg 0.32 waits for ever; this does not."""
    lost = asyncio.get_running_loop().create_future()

    def ended(_: object) -> None:
        if not lost.done():
            lost.set_result(None)

    opened.add_termination_listener(ended)
    task = asyncio.ensure_future(operation)
    try:
        await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=1)  # it may be about to say why
        if not task.done():
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        opened.remove_termination_listener(ended)
