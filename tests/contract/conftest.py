"""The example's records in Postgres: loaded once for a run, copied for each test that wants them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests.conftest import Server
from tests.support.stores import example, move, store


async def _admin(server: Server, *statements: str) -> None:
    opened = await asyncpg.connect(server.dsn("tester"))
    try:
        for statement in statements:
            await opened.execute(statement)
    finally:
        await opened.close()


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """A database that holds the example in workspace "notes", and again in workspace "neighbour"."""
    name = f"template_{os.getpid()}"

    async def fill() -> None:
        await _admin(server, f"CREATE DATABASE {name}")
        for workspace in ("notes", "neighbour"):
            await move(example().reader(), store(server, name, workspace))

    asyncio.run(fill())
    yield name
    asyncio.run(_admin(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def sql(server: Server, database: str) -> AsyncIterator[asyncpg.Connection]:
    """An administrator's session in the test's empty database."""
    opened = await asyncpg.connect(server.dsn(database))
    yield opened
    await opened.close()


@pytest.fixture
async def filled(server: Server, database: str, template: str) -> AsyncIterator[asyncpg.Connection]:
    """An administrator's session in the test's database, which is the template's."""
    await _admin(server, f"DROP DATABASE {database}", f"CREATE DATABASE {database} TEMPLATE {template}")
    opened = await asyncpg.connect(server.dsn(database))
    yield opened
    await opened.close()
