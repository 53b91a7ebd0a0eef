"""What is tried again, what LightRAG is told of TLS, and what pgvector must be."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from pathlib import Path

import asyncpg
import pytest

from hybridrag.backends.postgres.failures import passes_by
from hybridrag.backends.postgres.observe import problems
from hybridrag.backends.postgres.spec import TlsSpec
from hybridrag.backends.postgres.tls import lightrag_variables
from hybridrag.model.selection import Embedding


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (OSError("Multiple exceptions: refused, refused"), True),
        (OSError(errno.EHOSTUNREACH, "no route"), True),
        (FileNotFoundError(errno.ENOENT, "no socket"), True),
        (asyncio.TimeoutError(), True),
        (asyncpg.CannotConnectNowError("starting up"), True),
        (asyncpg.TooManyConnectionsError("full"), True),
        (asyncpg.InvalidPasswordError("no"), False),
        (asyncpg.InvalidAuthorizationSpecificationError("no pg_hba.conf entry"), False),
        (asyncpg.InvalidCatalogNameError("no"), False),
        (ConnectionError("PostgreSQL server rejected SSL upgrade"), False),
        (ssl.SSLCertVerificationError("no"), False),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), False),
        (PermissionError(errno.EACCES, "socket"), False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: BaseException, again: bool) -> None:
    """A password, a database, TLS and an unknown host do not become right by waiting."""
    assert passes_by(error) is again


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        (TlsSpec(mode="disable"), {"POSTGRES_SSL_MODE": "disable"}),
        (TlsSpec(mode="prefer"), {}),
        (TlsSpec(mode="require"), {"PGSSLMODE": "require"}),
        (
            TlsSpec(mode="require", ca=Path("/ca")),
            {"POSTGRES_SSL_MODE": "verify-ca", "POSTGRES_SSL_ROOT_CERT": "/ca"},
        ),
        (TlsSpec(mode="verify-full"), {"POSTGRES_SSL_MODE": "verify-full"}),
        (
            TlsSpec(mode="require", cert=Path("/c"), key=Path("/k")),
            {"PGSSLMODE": "require", "PGSSLCERT": "/c", "PGSSLKEY": "/k"},
        ),
    ],
)
def test_lightrag_is_told_the_same_tls(tls: TlsSpec, told: dict[str, str]) -> None:
    """Its own require and prefer mean verify-full, so asyncpg below it is told instead."""
    assert lightrag_variables(tls) == told


SERVER = {
    "reachable": True, "version_num": 150000, "version": "15.0", "encoding": "UTF8", "pgvector": "0.8.0",
    "pgvector_available": "0.8.0", "may_create_schema": True, "may_create_tables": True, "connection_limit": 97,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, None),
        ({"connection_limit": 12}, None),
        ({"pgvector": "0.4.4"}, "ALTER EXTENSION vector UPDATE"),
        ({"pgvector": "0.4.4", "pgvector_available": "0.4.4"}, "install a newer pgvector"),
        ({"pgvector": None, "pgvector_available": "0.4.4"}, "install a newer pgvector"),
        ({"pgvector": "0.10.0"}, None),
        ({"pgvector": None, "superuser": True}, None),
        ({"pgvector": None, "service": "azure"}, "azure.extensions"),
        ({"pgvector": None, "service": "rds"}, "rds_superuser"),
        ({"connection_limit": 11}, "pool.max to 9"),
        ({"standby": True}, "name the primary"),
        ({"version_num": 130012, "version": "13.12"}, "upgrade the server"),
        ({"encoding": "SQL_ASCII"}, "ENCODING"),
    ],
)
def test_what_a_server_lacks_comes_with_the_next_command(
    changed: dict[str, object], says: str | None
) -> None:
    """What has to be done first, or nothing."""
    found = problems("pg", {**SERVER, **changed}, Embedding(model="m", dim=96), pool=10)  # type: ignore[dict-item]
    assert bool(found) == (says is not None)
    assert says is None or says in str(found[0].hint)
