"""Connections to Postgres: opened here and nowhere else, with errors in words and secrets kept out of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, TypeVar

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from hybridrag.errors import BackendUnavailable

from .door import connect
from .endpoint import Endpoint
from .failures import FAILURES, explain, passes_by, several
from .fencing import session_name
from .sessions import begin
from .tls import connect_arguments

T = TypeVar("T")
READ_ONLY = "default_transaction_read_only"


async def _open_at(
    endpoint: Endpoint, *, purpose: str, settings: dict[str, str], attributes: str
) -> asyncpg.Connection:
    (host, port), secret = endpoint.hosts[0], endpoint.password()
    try:
        host.encode("idna")
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from None

    async def opening(told: Mapping[str, str]) -> asyncpg.Connection:
        return await connect(
            endpoint,
            host=host,
            port=port,
            user=endpoint.user,
            # An empty password is still ours; None would let asyncpg read PGPASSWORD or ~/.pgpass.
            password=secret.reveal() if secret else "",
            database=endpoint.database,
            timeout=endpoint.connect_timeout_s,
            target_session_attrs=attributes,
            statement_cache_size=0,  # poolers in transaction mode cannot keep prepared statements
            # These two every pooler takes.
            server_settings={**told, "application_name": session_name(purpose), "timezone": "UTC"},
            **connect_arguments(endpoint),
        )

    return await begin(endpoint, opening, {**endpoint.settings, **settings})


async def _open(
    endpoint: Endpoint, *, purpose: str, settings: dict[str, str]
) -> tuple[asyncpg.Connection, tuple[str, int]]:
    """A connection and the (host, port) it leads to: of several hosts the first that can be written to."""
    if len(endpoint.hosts) == 1:
        opened = await _open_at(endpoint, purpose=purpose, settings=settings, attributes="any")
        return opened, endpoint.hosts[0]
    # A session that is read-only from its start would look as if the server were.
    late = {name: value for name, value in settings.items() if name == READ_ONLY}
    early = {name: value for name, value in settings.items() if name != READ_ONLY}
    failures: list[tuple[str, int, BaseException]] = []
    for host, port in endpoint.hosts:
        try:
            opened = await _open_at(
                endpoint.only(host, port), purpose=purpose, settings=early, attributes="read-write"
            )
        except FAILURES as error:
            if not passes_by(error) and not isinstance(error, socket.gaierror):
                raise explain(error, endpoint.only(host, port)) from error
            failures.append((host, port, error))
            continue
        for name in late:
            await opened.execute(f"SET {name} = on")
        return opened, (host, port)
    raise NoneServes(failures)


class NoneServes(ConnectionError):
    """None of several hosts took a connection; trying again may help."""

    def __init__(self, failures: list[tuple[str, int, BaseException]]) -> None:
        self.failures = failures
        super().__init__()


async def serving_host(endpoint: Endpoint) -> tuple[str, int]:
    """The (host, port) to hand to a client that knows one only, just seen to serve. Raises BackendUnavailable."""
    try:
        opened, found = await _open(endpoint, purpose="observe", settings={READ_ONLY: "on"})
    except FAILURES as error:
        raise _explained(error, endpoint) from error
    with contextlib.suppress(*FAILURES):
        await opened.close(timeout=2)
    return found


def _explained(error: BaseException, endpoint: Endpoint) -> BackendUnavailable:
    return several(error.failures, endpoint) if isinstance(error, NoneServes) else explain(error, endpoint)


@contextlib.asynccontextmanager
async def connection(
    endpoint: Endpoint, *, purpose: str, read_only: bool, patience_s: float = 0.0
) -> AsyncIterator[asyncpg.Connection]:
    """A connection, closed at the end. `read_only` sessions cannot write, whatever is sent through them.

    Transient failures are retried for `patience_s` seconds, with growing random pauses. Raises
    BackendUnavailable for anything that goes wrong with the server, inside the block as well.
    """
    settings = {READ_ONLY: "on"} if read_only else {}
    try:
        attempts = AsyncRetrying(
            retry=retry_if_exception(passes_by),
            stop=stop_after_delay(patience_s),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            reraise=True,
        )
        opened: asyncpg.Connection
        opened, _ = await attempts(_open, endpoint, purpose=purpose, settings=settings)
        try:
            yield opened
        finally:
            with contextlib.suppress(*FAILURES):
                await opened.close(timeout=2)
    except FAILURES as error:
        raise _explained(error, endpoint) from error


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
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        opened.remove_termination_listener(ended)
