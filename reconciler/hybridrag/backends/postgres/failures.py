"""What a connection and its statements may raise: which of it passes by itself, and words for each."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl

import asyncpg

from hybridrag.errors import BackendUnavailable
from hybridrag.model.said import said as _said

from .door import AsksOpenly
from .endpoint import Endpoint, written
from .sessions import Shared

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
TRANSIENT = (
    ConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TargetServerAttributeNotMatched,  # a failover: the standby is about to take over
    asyncio.TimeoutError,
)
_PASSING_NUMBERS = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOENT}
"""ENOENT: the socket of a server that starts again."""
_REFUSED_TLS = "rejected SSL upgrade"
_CERTIFICATE_FAULTS = {
    10: ("has expired", "renew the server's certificate"),
    18: ("is signed by itself", "name that certificate as the root in {ca}"),
    19: ("comes from an authority that is not trusted here", "name that authority's certificate in {ca}"),
    20: ("comes from an authority that is not trusted here", "name that authority's certificate in {ca}"),
    62: ("is for another name", "name the server in {host} as its certificate does, or set mode verify-ca"),
    64: (
        "is for another address",
        "name the server in {host} as its certificate does, or set mode verify-ca",
    ),
}
"""By OpenSSL's numbers (X509_V_ERR_…)."""


def passes_by(error: BaseException) -> bool:
    """Whether trying again may help: never for a wrong password, a missing database, TLS or an unknown host."""
    if isinstance(error, (ssl.SSLError, socket.gaierror)) or _REFUSED_TLS in str(error):
        return False
    if isinstance(error, TRANSIENT):
        return True
    # asyncio has no number where a name has several addresses and all of them failed.
    return isinstance(error, OSError) and (error.errno is None or error.errno in _PASSING_NUMBERS)


def is_lost(error: BaseException) -> bool:
    """Whether the server went away; how asyncpg says so depends on what it was doing at that moment."""
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "in progress" in str(error)
    return isinstance(error, _LOST)


class NoSuchDatabase(BackendUnavailable):
    """The server answers, and has no database of that name."""


def explain(error: BaseException, endpoint: Endpoint) -> BackendUnavailable:
    """The error of a failed connection or statement in words, with the next thing to do."""
    who = f'backend "{endpoint.name}" (postgres at {endpoint.address})'
    what, hint = (
        _at_the_door(error, endpoint, who)
        or _of_a_statement(error, endpoint, who)
        or _of_the_network(error, endpoint, who)
    )
    absent = isinstance(error, asyncpg.InvalidCatalogNameError)
    return (NoSuchDatabase if absent else BackendUnavailable)(what, hint=hint)


def _at_the_door(error: BaseException, endpoint: Endpoint, who: str) -> tuple[str, str] | None:
    user, database = endpoint.user, endpoint.database
    mode = f"backends.{endpoint.name}.tls.mode" if endpoint.one_setting is None else "sslmode"
    if isinstance(error, asyncpg.InvalidPasswordError):
        return (
            f'{who} refuses the password of user "{user}"',
            f"correct {endpoint.key('user')} and {endpoint.key('password')}, then run hybridrag plan"
            if endpoint.one_setting is None
            else f"correct what {endpoint.key('')} refers to, then run hybridrag plan",
        )
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        said = str(error)[:10_000]
        if endpoint.tls.mode in ("disable", "allow") and "no encryption" in said:
            return (
                f"{who} takes no connection without TLS",
                f"set {mode} to require, or verify-full with a ca",
            )
        if "certificate" in said:
            return (
                f'{who} wants a client certificate of user "{user}"',
                f"set backends.{endpoint.name}.tls.cert and .key",
            )
        if "pg_hba.conf" in said:
            kind = "local" if endpoint.local else "host"
            return (
                f'{who} does not let user "{user}" into database "{database}" from here',
                f"as an administrator, in pg_hba.conf: {kind} {database} {user} "
                f"{'' if endpoint.local else '<this machine> '}scram-sha-256; then SELECT pg_reload_conf()",
            )
        return (
            f'{who} refuses user "{user}": {_said(error)}',
            f"correct {endpoint.key('user')}, then run hybridrag plan",
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        if endpoint.home is not None:
            return (
                f'{who} has no database "{database}"',
                "restore it if something was in it; hybridrag status shows what is where",
            )
        return (
            f'{who} has no database "{database}"',
            f'create it there (CREATE DATABASE "{database}"), or correct {endpoint.key("database")}',
        )
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return (
            f"{who}: none of its hosts that answer can be written to",
            f"name the primary in {endpoint.key('host')}, or promote a standby; then run hybridrag plan",
        )
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return (
            f'{who} has no free connection for user "{user}"',
            "hybridrag apply --parallelism 1 needs the fewest; or end sessions that are not needed "
            "(SELECT * FROM pg_stat_activity), or raise max_connections",
        )
    if isinstance(error, Shared):
        return (
            f"{who} is a connection pooler that does not keep a session for its client (transaction mode)",
            f"name the server's own port in {endpoint.key('port')}, or a pooler in session mode (Supabase: 5432)",
        )
    if isinstance(error, AsksOpenly):
        how = "in clear text" if error.method == "password" else "as an MD5 hash"
        return (
            f"{who} asks for the password {how} over an unencrypted connection; it was not sent",
            f"set {mode} to require, or better verify-full, or let the server ask by scram-sha-256; to allow it "
            f"by name: backends.{endpoint.name}.require_auth: {error.method}",
        )
    return None


def _of_a_statement(error: BaseException, endpoint: Endpoint, who: str) -> tuple[str, str] | None:
    user, database = endpoint.user, endpoint.database
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return (
            f'user "{user}" lacks a right on {who}: {_said(error)}',
            f'as an administrator: GRANT ALL ON DATABASE "{database}" TO "{user}"; '
            f'GRANT ALL ON SCHEMA public TO "{user}"',
        )
    if isinstance(error, asyncpg.DiskFullError):
        return f"{who} has no space left: {_said(error)}", "free disk space, then run hybridrag apply"
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return (
            f"{who} takes no writes: {_said(error)}",
            "see whether it is a standby, or ran full (default_transaction_read_only); then run hybridrag plan",
        )
    if is_lost(error):
        return (
            f"{who} ended the connection in the middle of the work",
            "see its log and that it runs (hybridrag status); then hybridrag apply goes on from the checkpoint",
        )
    if isinstance(error, asyncpg.PostgresError):
        return f"{who} answered: {_said(error)}", "see the server's log, then run hybridrag plan"
    return None


def _of_the_network(error: BaseException, endpoint: Endpoint, who: str) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        key = "the string" if endpoint.one_setting else f"backends.{endpoint.name}"
        ca = f"backends.{endpoint.name}.tls.ca"
        unknown = (f"is not accepted: {error.verify_message}", "check {ca}")
        fault, hint = _CERTIFICATE_FAULTS.get(error.verify_code, unknown)
        return f"{who}: its certificate {fault}", hint.format(
            ca=ca, host=f"{key}.host".replace("ing.", "ing's ")
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"{who}: TLS failed: {error.reason or _said(error)}",
            f"check backends.{endpoint.name}.tls in the spec",
        )
    if _REFUSED_TLS in str(error):
        return (
            f"{who} offers no TLS, and the mode {endpoint.tls.mode} demands it",
            f"switch TLS on there (ssl = on), or set {endpoint.key('tls.mode')} to prefer",
        )
    where = f"{endpoint.key('host')} and .port" if endpoint.one_setting is None else endpoint.key("")
    hint = f"start the server, or correct {where}; then run hybridrag plan"
    if isinstance(error, asyncio.TimeoutError):
        reason = f"no answer within {endpoint.connect_timeout_s:g} s"
        hint = f"see that a firewall lets this machine through, or correct {where}; then run hybridrag plan"
    elif isinstance(error, socket.gaierror):
        # A look-up's error numbers are not the system's.
        reason = (error.strerror or str(error)).lower()
        hint = f"correct {endpoint.key('host')}, then run hybridrag plan"
    elif isinstance(error, FileNotFoundError) and endpoint.local:
        reason = "there is no such socket"
        hint = f"start the server, or name the folder that it says: SHOW unix_socket_directories ({where})"
    elif isinstance(error, PermissionError) and endpoint.local:
        reason = "this user may not use that socket"
        hint = f"let this user in there (SHOW unix_socket_permissions), or name a TCP address in {where}"
    elif isinstance(error, OSError):
        # asyncio's own text repeats the address.
        reason = os.strerror(error.errno or errno.ECONNREFUSED).lower()
    else:
        reason = re.sub(r"\s+", " ", _said(error)) or type(error).__name__
    return f"{who} cannot be reached: {reason}", hint


def several(failures: list[tuple[str, int, BaseException]], endpoint: Endpoint) -> BackendUnavailable:
    """One error for several hosts of which none served, each with its own reason."""
    said = [
        explain(error, endpoint.only(host, port)).what.rpartition(": ")[2] or written(host, port)
        for host, port, error in failures
    ]
    each = "; ".join(
        f"{written(host, port)}: {why}" for (host, port, _), why in zip(failures, said, strict=True)
    )
    return BackendUnavailable(
        f'backend "{endpoint.name}": none of its {len(failures)} hosts can be written to ({each})',
        hint=f"start the primary, or correct {endpoint.key('host')}; then run hybridrag plan",
    )
