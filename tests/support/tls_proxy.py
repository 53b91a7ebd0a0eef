"""TLS in front of a Postgres that has none: answers SSLRequest, ends TLS, and passes the bytes on."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Iterator

from .listening import listening

_SSL_REQUEST = struct.pack("!ll", 8, 80877103)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.contextmanager
def tls_proxy(host: str, port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Its port on 127.0.0.1. A client that asks for no TLS is cut off."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(8) != _SSL_REQUEST:
                writer.close()
                return
            writer.write(b"S")
            await writer.drain()
            # StreamWriter.start_tls is newer than the oldest Python that we support.
            loop = asyncio.get_running_loop()
            protocol = writer.transport.get_protocol()
            transport = await loop.start_tls(writer.transport, protocol, context, server_side=True)
            assert transport is not None
            reader._transport = transport  # type: ignore[attr-defined]
            secure = asyncio.StreamWriter(transport, protocol, reader, loop)
            inner_reader, inner = await asyncio.open_connection(host, port)
            await asyncio.gather(_pipe(reader, inner), _pipe(inner_reader, secure))

    with listening(serve) as port_here:
        yield port_here
