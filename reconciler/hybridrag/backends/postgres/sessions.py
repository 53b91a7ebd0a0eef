"""What a session is told: at its start, or, behind a pooler that takes no settings there, by SET right after it.

A pooler in session mode keeps what is set; one in transaction mode gives the next statement to another session of the
server, where nothing of it holds. The two are told apart by trying.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable, Mapping

import asyncpg

from .endpoint import Endpoint

TIMEOUTS = {
    "statement_timeout": 0,
    "lock_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 14,
    "transaction_timeout": 17,
}
"""What ends a session, or its statement, after a time, and the major version that brought it."""
_SET = "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS told (name, value)"
_TOLD = {"hybridrag.session": "on"}
"""No pooler knows this setting, so one that refuses or ignores what it does not know gives itself away."""
_POOLED: set[tuple[str, int]] = set()
"""Addresses that took no settings at the start of a session, and keep those that are set later."""
_TRIES = 3

Opening = Callable[[Mapping[str, str]], Awaitable[asyncpg.Connection]]
"""Opens a session that is told these settings at its start."""


class Shared(OSError):
    """The address is a pooler's that does not keep a session for its client."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPROTO, why)


def is_pooled(host: str, port: int) -> bool:
    """Whether an address was found, in this process, to be a pooler's that takes no settings at the start."""
    return (host, port) in _POOLED


async def begin(endpoint: Endpoint, opening: Opening, settings: Mapping[str, str]) -> asyncpg.Connection:
    """A session of `endpoint` (which has one host) with these settings and no limit of time. Raises Shared."""
    address = endpoint.hosts[0]
    pooled = address in _POOLED
    if not pooled:
        try:
            opened = await opening({**_TOLD, **settings})
        except asyncpg.PostgresError as error:
            if "unsupported startup parameter" not in str(error):
                raise
            pooled = True
    if pooled:
        opened = await opening({})
    try:
        if address not in _POOLED and (pooled or not await _was_told(opened)):
            await _refuse_shared(opened, opening)
            _POOLED.add(address)
        await opened.execute(_unlimited(opened.get_server_version().major))
        if settings and address in _POOLED:
            await opened.execute(_SET, list(settings), list(settings.values()))
    except BaseException:
        with contextlib.suppress(Exception):
            opened.terminate()
        raise
    return opened


async def _was_told(opened: asyncpg.Connection) -> bool:
    (name,) = _TOLD
    return bool(await opened.fetchval(f"SELECT current_setting('{name}', true)"))


def _unlimited(version: int) -> str:
    """A server's or role's own limits are for queries; a copy, an index build, or a session that waits would fall to them."""
    return "; ".join(f"SET {name} = 0" for name, since in TIMEOUTS.items() if version >= since)


async def _refuse_shared(opened: asyncpg.Connection, opening: Opening) -> None:
    """Raises Shared where a second session, while it is in a transaction, gets the first one's, or displaces it."""
    other = await opening({})
    try:
        for _ in range(_TRIES):
            mine = await opened.fetchval("SELECT pg_backend_pid()")
            async with other.transaction():
                others = await other.fetchval("SELECT pg_backend_pid()")
                again = await opened.fetchval("SELECT pg_backend_pid()")
            if mine != again or mine == others:
                raise Shared("statements of a session reach different sessions of the server")
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
    ) as error:  # statement mode ends what begins a transaction
        raise Shared("transactions are not kept together") from error
    finally:
        other.terminate()
