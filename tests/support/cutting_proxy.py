"""In front of a Postgres: cuts one connection at the COMMIT of a chosen transaction, before it or before its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from .listening import listening


@dataclass(slots=True)
class Cutting:
    """Where: at the first COMMIT behind `word` on the same connection, once. `before`: the server never sees it."""

    word: bytes
    before: bool
    port: int = 0
    done: bool = False
    refuse: bool = False
    """From the cut on, take no connection any more."""


@contextlib.contextmanager
def cutting_proxy(host: str, port: int, cutting: Cutting) -> Iterator[Cutting]:
    """With its port on 127.0.0.1."""

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if cutting.done and cutting.refuse:
            to_client.close()
            return
        server, to_server = await asyncio.open_connection(host, port)
        armed = silent = False
        answered = asyncio.Event()

        async def forward() -> None:
            nonlocal armed, silent
            while data := await client.read(1 << 16):
                armed = armed or cutting.word in data
                if armed and b"COMMIT" in data and not cutting.done:
                    cutting.done = True
                    if not cutting.before:
                        silent = True
                        to_server.write(data)
                        await answered.wait()
                    break
                to_server.write(data)
                await to_server.drain()
            to_client.close()
            to_server.close()

        async def answer() -> None:
            while data := await server.read(1 << 16):
                if silent:
                    answered.set()
                    return
                to_client.write(data)
                await to_client.drain()
            to_client.close()

        await asyncio.gather(forward(), answer(), return_exceptions=True)
        for writer in (to_client, to_server):
            writer.close()

    with listening(serve) as cutting.port:
        yield cutting
