"""Single records of a finished copy: asked for by key, put and removed. For what was written during the copy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import asyncpg

from hybridrag.errors import PlanRefused
from hybridrag.model.data import EDGE_SEPARATOR, Batch
from hybridrag.model.ports import Embedding

from .client import connection, while_open
from .copy_binary import Decoder, Encoder, RowSplitter
from .endpoint import Endpoint
from .ledger import Ledger
from .rows import Shape
from .tables import table_name
from .writer import chunk_order, once

KEYS_AT_ONCE = 10_000
_EDGES = "(src_id, tgt_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))"
_ROWS = "id = ANY($2::text[])"


def _chosen(namespace: str, keys: Sequence[str]) -> tuple[str, tuple[list[str], ...]]:
    """(condition, its arguments) for some keys of a namespace."""
    if namespace != "edges":
        return _ROWS, (list(keys),)
    ends = [key.split(EDGE_SEPARATOR, 1) for key in keys]
    return _EDGES, ([end[0] for end in ends], [end[-1] for end in ends])


async def keys_of(
    endpoint: Endpoint, workspace: str, embedding: Embedding, namespace: str
) -> AsyncIterator[list[str]]:
    """Every key of a namespace, in groups."""
    key = f"src_id || '{EDGE_SEPARATOR}' || tgt_id" if namespace == "edges" else "id"
    query = f"SELECT {key} FROM {table_name(namespace, embedding)} WHERE workspace = $1"
    async with (
        connection(endpoint, purpose="verify", read_only=True, patience_s=10) as opened,
        opened.transaction(readonly=True),
    ):
        group: list[str] = []
        async for row in opened.cursor(query, workspace, prefetch=KEYS_AT_ONCE):
            group.append(row[0])
            if len(group) >= KEYS_AT_ONCE:
                yield group
                group = []
        if group:
            yield group


async def fetch(
    endpoint: Endpoint, workspace: str, embedding: Embedding, namespace: str, keys: Sequence[str]
) -> Batch:
    """Those of some records that are there."""
    decoder, splitter = Decoder(Shape(namespace)), RowSplitter()
    condition, chosen = _chosen(namespace, keys)
    query = (
        f"SELECT {', '.join(decoder.select)} FROM {table_name(namespace, embedding)} "
        f"WHERE workspace = $1 AND {condition}"
    )
    rows: list[list[bytes | None]] = []

    async def sink(data: bytes) -> None:
        rows.extend(row for row, _ in splitter.feed(data))

    async with connection(endpoint, purpose="verify", read_only=True, patience_s=10) as opened:
        await opened.copy_from_query(query, workspace, *chosen, output=sink, format="binary")
    return decoder.decode(rows, len(rows))


class PostgresPatcher:
    """See `model.ports.Patcher`."""

    def __init__(self, opened: asyncpg.Connection, workspace: str, embedding: Embedding) -> None:
        self._opened = opened
        self._workspace = workspace
        self._embedding = embedding

    async def put(self, batch: Batch) -> None:
        """Through a temporary table, because an edge hangs on its node: a node must be updated, never removed."""
        shape = Shape(batch.namespace)
        encoder = Encoder(shape, self._workspace)
        table = table_name(batch.namespace, self._embedding)
        order = None
        if batch.namespace == "chunks":
            known = await chunk_order(
                self._opened, table_name("text_chunks", self._embedding), self._workspace, batch.keys
            )
            order = lambda key: known.get(key, (None, None))  # noqa: E731
        key = ["workspace", "id"]
        if shape.table.graph:
            key = [
                "workspace",
                "namespace",
                *(["id"] if batch.namespace == "nodes" else ["src_id", "tgt_id"]),
            ]
        values = ", ".join(f"{name} = EXCLUDED.{name}" for name in encoder.columns if name not in key)
        names = ", ".join(encoder.columns)
        data = encoder.encode(batch, order)
        async with self._opened.transaction():
            await self._opened.execute(f"CREATE TEMPORARY TABLE patch (LIKE {table}) ON COMMIT DROP")
            await while_open(
                self._opened,
                self._opened.copy_to_table(
                    "patch", source=once(data), columns=encoder.columns, format="binary"
                ),
            )
            await self._opened.execute(
                f"INSERT INTO {table} ({names}) SELECT {names} FROM patch "
                f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {values}"
            )

    async def remove(self, namespace: str, keys: Sequence[str]) -> None:
        condition, chosen = _chosen(namespace, keys)
        table = table_name(namespace, self._embedding)
        await self._opened.execute(
            f"DELETE FROM {table} WHERE workspace = $1 AND {condition}", self._workspace, *chosen
        )


class PostgresPatcherSession:
    """Async context manager: one connection, the workspace's advisory lock, the mark taken back, one patcher."""

    def __init__(self, endpoint: Endpoint, workspace: str, embedding: Embedding, migration_id: str) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding
        self._migration_id = migration_id
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> PostgresPatcher:
        opened = await self._stack.enter_async_context(
            connection(self._endpoint, purpose="writer", read_only=False, patience_s=15)
        )
        ledger = Ledger(opened, self._workspace)
        try:
            # What is changed from now on is unverified, whoever looks at it after a kill.
            if not await ledger.lock() or not await ledger.advance(self._migration_id, "copied"):
                raise PlanRefused(
                    f'workspace "{self._workspace}" in backend "{self._endpoint.name}" is being written by another run',
                    hint="wait for it to end, then run hybridrag apply",
                )
        except BaseException:
            await self._stack.aclose()
            raise
        return PostgresPatcher(opened, self._workspace, self._embedding)

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
