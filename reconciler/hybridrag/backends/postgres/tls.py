"""TLS towards the server, in libpq's meaning, for asyncpg and for LightRAG; and what can be wrong with its files."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlencode

from hybridrag.errors import SpecInvalid

from .endpoint import Endpoint
from .spec import TlsSpec


def connect_arguments(endpoint: Endpoint) -> dict[str, Any]:
    """asyncpg's arguments. It reads libpq's parameters itself, from its `dsn`, and falls back like libpq does.

    Only for verify-ca and verify-full without a root certificate it would insist on one below ~/.postgresql; the
    system's store serves there, as it does for LightRAG.
    """
    tls = endpoint.tls
    if endpoint.local or tls.mode == "disable":
        return {"ssl": False}
    _check_files(tls, endpoint)
    if tls.mode in ("verify-ca", "verify-full") and tls.ca is None:
        context = ssl.create_default_context()
        context.check_hostname = tls.mode == "verify-full"
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
        return {"ssl": context}
    parts = {"sslmode": tls.mode, "sslrootcert": tls.ca, "sslcert": tls.cert, "sslkey": tls.key}
    return {"dsn": "postgresql://?" + urlencode({name: str(value) for name, value in parts.items() if value})}


def lightrag_variables(tls: TlsSpec) -> dict[str, str]:
    """The same for LightRAG 1.5.7 (`postgres_impl.py`, _create_ssl_context).

    Its own "require" and "prefer" both mean verify-full by the system's store, so it is told nothing there, and
    asyncpg below it reads libpq's variables.
    """
    if tls.mode == "disable":
        return {"POSTGRES_SSL_MODE": "disable"}
    files = {"ROOT_CERT": tls.ca, "CERT": tls.cert, "KEY": tls.key}
    mode = "verify-ca" if tls.mode == "require" and tls.ca else tls.mode
    if mode in ("verify-ca", "verify-full"):
        own = {f"POSTGRES_SSL_{name}": str(path) for name, path in files.items() if path}
        return {"POSTGRES_SSL_MODE": mode, **own}
    if mode == "prefer" and not any(files.values()):
        return {}  # asyncpg's default; a variable would outlive hybridrag.open() for nothing
    names = {"ROOT_CERT": "PGSSLROOTCERT", "CERT": "PGSSLCERT", "KEY": "PGSSLKEY"}
    return {"PGSSLMODE": mode, **{names[name]: str(path) for name, path in files.items() if path}}


def _check_files(tls: TlsSpec, endpoint: Endpoint) -> None:
    """Raises SpecInvalid: asyncpg's words for these would be about an unreachable server."""
    where = f"backends.{endpoint.name}.tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise SpecInvalid(
                f'{where}.{name} refers to the file "{path}", which cannot be read: {(error.strerror or "").lower()}',
                hint="correct the path; it is relative to the folder of the spec",
            ) from None
    if tls.ca is not None:
        try:
            context.load_verify_locations(cafile=tls.ca)
        except ssl.SSLError:
            raise SpecInvalid(
                f'{where}.ca: the file "{tls.ca}" holds no certificate', hint="it must hold one in PEM form"
            ) from None
    if tls.cert is not None:
        _check_pair(tls, where, context)


def _check_pair(tls: TlsSpec, where: str, context: ssl.SSLContext) -> None:
    encrypted = False

    def passphrase() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        context.load_cert_chain(str(tls.cert), str(tls.key), password=passphrase)
        return
    except ssl.SSLError:
        pass
    if encrypted:
        raise SpecInvalid(
            f'{where}.key: the key "{tls.key}" has a passphrase, which LightRAG cannot give',
            hint="write it without one, readable to you alone: openssl pkey -in KEY -out NEW",
        )
    raise SpecInvalid(
        f'{where}: the certificate "{tls.cert}" and the key "{tls.key}" do not belong together, or are not in PEM form',
        hint="name the certificate and the key that was made with it",
    )
