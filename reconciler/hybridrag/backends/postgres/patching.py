"""Single records of a finished copy: asked for by key, put and removed. For what was written during the copy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from hybridrag.errors import PlanRefused
from hybridrag.model.data import EDGE_SEPARATOR, Batch, Slot
from hybridrag.model.ports import Embedding

from . import keeping
from .client import connection, while_open
from .copy_binary import Decoder, Encoder, RowSplitter
from .endpoint import Endpoint
from .failures import FAILURES, explain
from .indexes import column_type
from .ledger import Ledger
from .rows import Shape
from .spec import VectorIndexSpec
from .tables import TABLES, table_name
from .writer import chunk_order, once

KEYS_AT_ONCE = 10_000
_EDGES = "(src_id, tgt_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))"
_ROWS = "id = ANY($2::text[])"


def chosen_by(namespace: str, keys: Sequence[str]) -> tuple[str, tuple[list[str], ...]]:
    """(condition, its arguments) for some keys of a namespace."""
    if namespace != "edges":
        return _ROWS, (list(keys),)
    ends = [key.split(EDGE_SEPARATOR, 1) for key in keys]
    return _EDGES, ([end[0] for end in ends], [end[-1] for end in ends])


def key_of(namespace: str) -> str:
    """A record's key, as an SQL expression."""
    return f"src_id || '{EDGE_SEPARATOR}' || tgt_id" if namespace == "edges" else "id"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresMending:
    """See `model.ports.Mending`."""

    endpoint: Endpoint
    workspace: str
    embedding: Embedding
    slots: frozenset[Slot]
    index: VectorIndexSpec
    create_schema: Callable[[], Awaitable[None]]

    def table(self, namespace: str) -> str:
        return table_name(namespace, self.embedding)

    def shape(self, namespace: str) -> Shape:
        return Shape(namespace, half=column_type(self.index) == "halfvec" and TABLES[namespace].vector)

    async def keys(self, namespace: str) -> AsyncIterator[list[str]]:
        query = f"SELECT {key_of(namespace)} FROM {self.table(namespace)} WHERE workspace = $1"
        async with (
            connection(self.endpoint, purpose="verify", read_only=True, patience_s=10) as opened,
            opened.transaction(readonly=True),
        ):
            group: list[str] = []
            async for row in opened.cursor(query, self.workspace, prefetch=KEYS_AT_ONCE):
                group.append(row[0])
                if len(group) >= KEYS_AT_ONCE:
                    yield group
                    group = []
            if group:
                yield group

    async def fetch(self, namespace: str, keys: Sequence[str]) -> Batch:
        decoder, splitter = Decoder(self.shape(namespace)), RowSplitter()
        condition, chosen = chosen_by(namespace, keys)
        columns = ", ".join(
            "content_vector::vector" if name == "content_vector" else name for name in decoder.select
        )
        query = f"SELECT {columns} FROM {self.table(namespace)} WHERE workspace = $1 AND {condition}"
        rows: list[list[bytes | None]] = []

        async def sink(data: bytes) -> None:
            rows.extend(row for row, _ in splitter.feed(data))

        async with connection(self.endpoint, purpose="verify", read_only=True, patience_s=10) as opened:
            await opened.copy_from_query(query, self.workspace, *chosen, output=sink, format="binary")
        if not rows:
            nothing = (
                np.empty((0, self.embedding.dim), dtype=np.float32) if TABLES[namespace].vector else None
            )
            return Batch(namespace=namespace, position=0, vectors=nothing)
        return decoder.decode(rows, len(rows))

    async def reclaim(self, migration_id: str) -> None:
        await keeping.reclaim(self.endpoint, self.workspace, self.slots, migration_id, self.create_schema)

    def open(self, migration_id: str) -> PostgresPatcherSession:
        return PostgresPatcherSession(self, migration_id)


class PostgresPatcher:
    """See `model.ports.Patcher`."""

    def __init__(self, opened: asyncpg.Connection, mending: PostgresMending) -> None:
        self._opened = opened
        self._mending = mending

    async def put(self, batch: Batch) -> None:
        """Through a temporary table, because an edge hangs on its node: a node must be updated, never removed.

        A column that has no field (when a node was written) takes its default.
        """
        name, workspace = batch.namespace, self._mending.workspace
        encoder = Encoder(self._mending.shape(name), workspace)
        data = encoder.encode(batch)
        if name == "chunks" and Slot.KV in self._mending.slots:
            known = await chunk_order(self._opened, self._mending.table("text_chunks"), workspace, batch.keys)
            data = encoder.encode(batch, lambda key: known.get(key, (None, None)))
        elif name == "chunks":
            data = encoder.encode(batch, lambda key: (None, None))
        key = ["workspace", "id"]
        if TABLES[name].graph:
            key = ["workspace", "namespace", *(["id"] if name == "nodes" else ["src_id", "tgt_id"])]
        values = ", ".join(f"{column} = EXCLUDED.{column}" for column in encoder.columns if column not in key)
        names, table = ", ".join(encoder.columns), self._mending.table(name)
        async with self._opened.transaction():
            await self._opened.execute(
                f"CREATE TEMPORARY TABLE patch (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP"
            )
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
        condition, chosen = chosen_by(namespace, keys)
        await self._opened.execute(
            f"DELETE FROM {self._mending.table(namespace)} WHERE workspace = $1 AND {condition}",
            self._mending.workspace,
            *chosen,
        )


class PostgresPatcherSession:
    """Async context manager: one connection, the locks of the workspace's slots, the mark taken back, one patcher."""

    def __init__(self, mending: PostgresMending, migration_id: str) -> None:
        self._mending = mending
        self._migration_id = migration_id
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> PostgresPatcher:
        mending = self._mending
        opened = await self._stack.enter_async_context(
            connection(mending.endpoint, purpose="writer", read_only=False, patience_s=15)
        )
        ledger = Ledger(opened, mending.workspace, mending.slots)
        try:
            # What is changed from now on is unverified, whoever looks at it after a kill.
            if not await ledger.lock() or not await ledger.advance(self._migration_id, "copied"):
                raise PlanRefused(
                    f'workspace "{mending.workspace}" in backend "{mending.endpoint.name}" is being written by another run',
                    hint="wait for it to end, then run hybridrag apply",
                )
        except BaseException:
            await self._stack.aclose()
            raise
        return PostgresPatcher(opened, mending)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        await self._stack.aclose()
        if isinstance(error, FAILURES):
            raise explain(error, self._mending.endpoint) from error
