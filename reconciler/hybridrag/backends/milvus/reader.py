"""Read a workspace's vectors back in the order of their ids, page by page, and tell whether they changed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from hybridrag.errors import NotFound
from hybridrag.model.data import Batch
from hybridrag.model.ports import Reader
from hybridrag.model.selection import Embedding

from .client import SLOW_TIMEOUT_S, Connection, Endpoint, connection, quoted
from .collections import LIMITS, TIME, collection_names, left_over
from .rows import batch_of

PAGE_BYTES = 2 << 20
"""A page's size is chosen after the one before; gateways in front of a server refuse answers above 4 MB."""
FIRST_ROWS = 256
MOST_ROWS = 10_000
"""A server gives 16,384 at most. Pages are large because a server may look through all rows for each."""


class MilvusReader:
    """See `model.ports.Reader`. Every page is read as of its own moment; `fingerprint` tells of writers between."""

    def __init__(self, endpoint: Endpoint, workspace: str, embedding: Embedding) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[MilvusReader]:
        """Itself: there is no view of one moment, so a change is told by the fingerprint only."""
        yield self

    async def fingerprint(self) -> str:
        """Over every field but the vectors: LightRAG renews `created_at` with each of them.

        The server offers nothing cheaper that changes with every write. About 1 s for 20,000 records.
        """
        names = collection_names(self._workspace, self._embedding)
        async with connection(self._endpoint, patience_s=10) as opened:
            existing = set(await opened.call("list_collections"))
            present = {namespace: name for namespace, name in names.items() if name in existing}
            if not present:
                raise NotFound(
                    f'workspace "{self._workspace}" in backend "{self._endpoint.name}" has no collections',
                    hint="hybridrag status shows what is where",
                )
            return await fingerprint(opened, present)

    async def kept(self) -> None:
        """Nothing keeps it; what was read of several moments is compared as a whole later."""

    async def prepare(self) -> None:
        """There is nothing to look up."""

    @contextlib.asynccontextmanager
    async def until(self, later: Reader) -> AsyncIterator[None]:
        """The server does not tell what was written since."""
        yield None

    async def unfinished(self) -> list[str]:
        names = collection_names(self._workspace, self._embedding)
        async with connection(self._endpoint, patience_s=10) as opened:
            return left_over(await opened.call("list_collections"), names.values())

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        """Pages of about `PAGE_BYTES`; the next is fetched while one is used."""
        name = collection_names(self._workspace, self._embedding)[namespace]
        limit = max(1, min(rows, FIRST_ROWS, PAGE_BYTES // (self._embedding.dim * 4)))
        async with connection(self._endpoint, patience_s=10) as opened:
            if not await opened.call("has_collection", name):
                return
            if not await opened.loaded(name):  # into the server's memory, as LightRAG does when it starts
                await opened.call("load_collection", name, timeout=SLOW_TIMEOUT_S)
            position = skip
            last = await _last_of(opened, name, skip)
            if skip and last is None:
                return
            fetching = _fetch(opened, name, last, limit)
            try:
                while (stop is None or position < stop) and (found := await fetching):
                    position += len(found)
                    batch = batch_of(namespace, found, position)
                    limit = _rows_of(batch.size, len(found), rows)
                    fetching = _fetch(opened, name, found[-1]["id"], limit)
                    yield batch.up_to(stop)
            finally:
                fetching.cancel()
                await asyncio.gather(fetching, return_exceptions=True)


def _fetch(opened: Connection, name: str, last: str | None, limit: int) -> asyncio.Task[list[dict[str, Any]]]:
    return asyncio.create_task(opened.query(name, _after(last), ["*"], limit))


def _rows_of(size: int, count: int, most: int) -> int:
    """Rows of the next page, when `count` rows took `size` bytes."""
    return max(1, min(most, MOST_ROWS, PAGE_BYTES * count // max(1, size)))


def _after(last: str | None) -> str:
    return f"id > {quoted(last)}" if last is not None else 'id != ""'


async def _last_of(opened: Connection, name: str, count: int) -> str | None:
    """Id of the record number `count`; None when there are not so many."""
    last: str | None = None
    while count:
        found = await opened.query(name, _after(last), ["id"], min(count, MOST_ROWS))
        if not found:
            return None
        last = found[-1]["id"]
        count -= len(found)
    return last


async def keys_of(opened: Connection, name: str) -> AsyncIterator[list[str]]:
    """Every id of a collection, page by page."""
    last: str | None = None
    while found := await opened.query(name, _after(last), ["id"], MOST_ROWS):
        last = found[-1]["id"]
        yield [row["id"] for row in found]


async def fingerprint(opened: Connection, names: Mapping[str, str]) -> str:
    """Digest over all records without their vectors."""
    state = hashlib.blake2b(digest_size=16)
    for namespace, name in sorted(names.items()):
        described = await opened.call("describe_collection", name)
        there = {column["name"] for column in described["fields"]}
        fields = [column for column in ("id", TIME, *LIMITS[namespace]) if column in there]
        state.update(f"{name}:{','.join(fields)}".encode())
        last: str | None = None
        limit = FIRST_ROWS
        while found := await opened.query(name, _after(last), fields, limit):
            last = found[-1]["id"]
            text = orjson.dumps([[row.get(column) for column in fields] for row in found])
            state.update(text[1:-1] + b",")  # whatever the pages
            limit = _rows_of(len(text), len(found), MOST_ROWS)
    return state.hexdigest()
