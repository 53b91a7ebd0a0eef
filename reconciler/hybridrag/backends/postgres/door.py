"""How a server may ask for the password. asyncpg has no `require_auth`, so what a server sends before a session begins
is looked at on its way, and a connection that asks too openly is cut before anything is answered.

Messages and numbers: "Message Formats" in PostgreSQL's manual (AuthenticationCleartextPassword, …MD5Password).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

import asyncpg

from .endpoint import Endpoint

CLEAR, MD5 = 3, 5
_METHODS = {CLEAR: "password", MD5: "md5"}
_REQUEST, _READY = ord("R"), ord("Z")
_LOOPBACK = ("127.", "localhost", "::1")
_MOST = 1 << 16
"""Bytes of an authentication request; a longer one is no server's."""


class AsksOpenly(OSError):
    """The server wants the password in a form that the spec does not allow without TLS; it was not sent."""

    def __init__(self, method: str) -> None:
        self.method = method
        super().__init__(errno.EPROTO, f"asks for the password by {method} without TLS")


def refused_methods(endpoint: Endpoint) -> frozenset[int]:
    """The requests that are not answered over an unencrypted connection.

    Clear text never, unless the spec names it; MD5, which can be guessed offline, on this machine only.
    """
    if endpoint.require_auth == "password":
        return frozenset()
    here = all(host.lower().startswith(_LOOPBACK) for host, _ in endpoint.hosts)
    if endpoint.require_auth == "md5" or (endpoint.require_auth is None and here):
        return frozenset({CLEAR})
    return frozenset({CLEAR, MD5})


async def connect(endpoint: Endpoint, **arguments: Any) -> asyncpg.Connection:
    """`asyncpg.connect`; raises AsksOpenly as well. TLS and a unix socket need no look."""
    if endpoint.local or endpoint.tls.mode not in ("disable", "allow", "prefer"):
        return await asyncpg.connect(**arguments)
    loop = _Loop(asyncio.get_running_loop(), refused_methods(endpoint))
    try:
        return await asyncpg.connect(loop=loop, **arguments)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        if loop.asked is not None:
            raise AsksOpenly(_METHODS[loop.asked]) from None
        raise


class _Loop:
    """The running loop; connections that it makes are looked at while they carry no TLS."""

    def __init__(self, loop: asyncio.AbstractEventLoop, refused: frozenset[int]) -> None:
        self._loop = loop
        self._refused = refused
        self.asked: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def gate(self, inner: Any) -> _Gate:
        return _Gate(inner, self)

    def refuses(self, method: int) -> bool:
        if method in self._refused:
            self.asked = method
        return method in self._refused

    async def create_connection(self, factory: Callable[[], Any], *args: Any, **more: Any) -> tuple[Any, Any]:
        """A protocol of asyncpg's speaks at once; anything else asks for TLS first, and may be told that there is none."""

        def gated() -> Any:
            made = factory()
            return self.gate(made) if isinstance(made, asyncpg.protocol.Protocol) else made

        transport, protocol = await self._loop.create_connection(gated, *args, **more)
        if isinstance(protocol, _Gate):
            return transport, protocol.inner
        return _Transport(transport, self), protocol

    async def start_tls(self, transport: Any, *args: Any, **more: Any) -> Any:
        plain = transport.inner if isinstance(transport, _Transport) else transport
        return await self._loop.start_tls(plain, *args, **more)


class _Transport:
    """A transport whose next protocol, after TLS was declined, is looked at."""

    def __init__(self, inner: Any, loop: _Loop) -> None:
        self.inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def set_protocol(self, protocol: Any) -> None:
        gate = self._loop.gate(protocol)
        gate.transport = self.inner
        self.inner.set_protocol(gate)


class _Gate(asyncio.Protocol):
    """Stands before asyncpg's protocol until the server is ready for queries."""

    def __init__(self, inner: Any, loop: _Loop) -> None:
        self.inner = inner
        self.transport: Any = None
        self._loop = loop
        self._held = b""
        self._passing = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        self._held = b""
        at = 0
        while at < len(data):
            if self._passing:
                step = min(self._passing, len(data) - at)
                self.inner.data_received(data[at : at + step])
                self._passing -= step
                at += step
                continue
            header = data[at : at + 5]
            size = 1 + int.from_bytes(header[1:5], "big") if len(header) == 5 else 0
            if not size or (header[0] == _REQUEST and size <= _MOST and len(data) - at < size):
                self._held = data[at:]
                return
            if header[0] == _REQUEST and not self._may_ask(data[at : at + size], size):
                self.transport.abort()
                return
            if header[0] == _READY:
                self.transport.set_protocol(self.inner)
                self.inner.data_received(data[at:])
                return
            self._passing = max(size, 5)

    def _may_ask(self, message: bytes, size: int) -> bool:
        return 9 <= size <= _MOST and not self._loop.refuses(int.from_bytes(message[5:9], "big"))

    def eof_received(self) -> Any:
        return self.inner.eof_received()

    def connection_lost(self, error: BaseException | None) -> None:
        self.inner.connection_lost(error)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()
