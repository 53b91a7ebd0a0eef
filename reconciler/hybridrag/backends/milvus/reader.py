"""Read a workspace's vectors back in the order of their ids, page by page, and tell whether they changed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

import orjson

from hybridrag.errors import NotFound
from hybridrag.model.data import Batch
from hybridrag.model.ports import Embedding

from .client import SLOW_TIMEOUT_S, Connection, Endpoint, connection, quoted
from .collections import LIMITS, TIME, collection_names, left_over
from .rows import batch_of

PAGE_BYTES = 2 << 20
"""Vectors of one page; gateways in front of a server refuse answers above 4 MB."""
PAGE_ROWS = 256
SCAN_ROWS = 1000
SKIP_ROWS = 10_000


class MilvusReader:
    """See `model.ports.Reader`. Every page is read as of its own moment; `fingerprint` tells of writers between."""

    def __init__(self, endpoint: Endpoint, workspace: str, embedding: Embedding) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding

    async def fingerprint(self) -> str:
        """Over every field but the vectors: LightRAG renews `created_at` with each vector. About 20 s a million rows
        and GB of text; the server offers nothing cheaper that changes with every write."""
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

    async def unfinished(self) -> list[str]:
        names = collection_names(self._workspace, self._embedding)
        async with connection(self._endpoint, patience_s=10) as opened:
            return left_over(await opened.call("list_collections"), names.values())

    async def read(self, namespace: str, *, skip: int = 0, rows: int = 1000) -> AsyncIterator[Batch]:
        """Pages of at most `PAGE_BYTES` of vectors; the next is fetched while one is used."""
        name = collection_names(self._workspace, self._embedding)[namespace]
        limit = max(1, min(rows, PAGE_ROWS, PAGE_BYTES // (self._embedding.dim * 4)))
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
                while found := await fetching:
                    fetching = _fetch(opened, name, found[-1]["id"], limit)
                    position += len(found)
                    yield batch_of(namespace, found, position)
            finally:
                fetching.cancel()
                await asyncio.gather(fetching, return_exceptions=True)


def _fetch(opened: Connection, name: str, last: str | None, limit: int) -> asyncio.Task[list[dict[str, Any]]]:
    return asyncio.ensure_future(_page(opened, name, last, limit))


def _page(
    opened: Connection, name: str, last: str | None, limit: int
) -> Coroutine[Any, Any, list[dict[str, Any]]]:
    return opened.query(name, _after(last), ["*"], limit)


def _after(last: str | None) -> str:
    return f"id > {quoted(last)}" if last is not None else 'id != ""'


async def _last_of(opened: Connection, name: str, count: int) -> str | None:
    """Id of the record number `count`; None when there are not so many."""
    last: str | None = None
    while count:
        found = await opened.query(name, _after(last), ["id"], min(count, SKIP_ROWS))
        if not found:
            return None
        last = found[-1]["id"]
        count -= len(found)
    return last


async def fingerprint(opened: Connection, names: Mapping[str, str]) -> str:
    """Digest over all records without their vectors."""
    state = hashlib.blake2b(digest_size=16)
    for namespace, name in sorted(names.items()):
        described = await opened.call("describe_collection", name)
        there = {column["name"] for column in described["fields"]}
        fields = [column for column in ("id", TIME, *LIMITS[namespace]) if column in there]
        state.update(f"{name}:{','.join(fields)}".encode())
        last: str | None = None
        while found := await opened.query(name, _after(last), fields, SCAN_ROWS):
            last = found[-1]["id"]
            for row in found:
                state.update(orjson.dumps([row.get(column) for column in fields]))
    return state.hexdigest()
