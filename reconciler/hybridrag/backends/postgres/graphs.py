"""The two ways in which LightRAG keeps a graph in Postgres, behind one interface: in its own tables, or in Apache AGE.

A workspace's nodes and edges are rows of one relation each. In LightRAG's tables these are shared with the neighbours
and told apart by a column; in AGE every workspace has relations of its own. Everything else asks here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

import asyncpg

from hybridrag.model.data import EDGE_SEPARATOR, Batch, Slot, streams_of
from hybridrag.model.selection import Embedding

from .catalog import Physical, expressions
from .client import while_open
from .copy_binary import Decoder, Encoder
from .rows import Shape
from .tables import GRAPH_NAMESPACE, TABLES, table_name

STREAMS = streams_of({Slot.GRAPH})
Rows = list[list["bytes | None"]]


class RowDecoder(Protocol):
    def decode(self, rows: Rows, position: int) -> Batch: ...


class RowEncoder(Protocol):
    def encode(self, batch: Batch) -> bytes:
        """One whole COPY BINARY stream."""
        ...


class Graph(Protocol):
    """`storage` is LightRAG's class; `mine` the condition on rows of the workspace, which is the parameter $1."""

    @property
    def storage(self) -> str: ...

    @property
    def mine(self) -> str: ...

    def owner(self, workspace: str) -> str:
        """The name under which our ledger keeps the mark of the graph slot."""
        ...

    def relation(self, namespace: str, workspace: str) -> str:
        """What to write after FROM."""
        ...

    def shape(self, namespace: str) -> Shape: ...

    def encoder(self, namespace: str, workspace: str) -> RowEncoder: ...

    def decoder(self, namespace: str) -> RowDecoder: ...

    def query(self, namespace: str, workspace: str, present: Physical, skip: int) -> str:
        """Every row but the first `skip`, always in the same order, as the decoder takes them."""
        ...

    async def load(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, data: bytes, records: int
    ) -> None:
        """Add encoded records to a graph that does not hold them, inside a transaction."""
        ...

    async def put(self, opened: asyncpg.Connection, workspace: str, batch: Batch) -> None:
        """Insert records, or replace those that are there, inside a transaction."""
        ...

    async def remove(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, keys: Sequence[str]
    ) -> None: ...

    def chosen(
        self, namespace: str, workspace: str, keys: Sequence[str]
    ) -> tuple[str, tuple[list[str], ...]]:
        """(query, its arguments from $2 on) for the rows of some keys, as the decoder takes them."""
        ...

    def keys(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, at_once: int
    ) -> AsyncIterator[str]: ...


def ends_of(keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both ends of edges by their keys."""
    pairs = [key.split(EDGE_SEPARATOR, 1) for key in keys]
    return [pair[0] for pair in pairs], [pair[-1] for pair in pairs]


class TableGraph:
    """LightRAG's PGTableGraphStorage: two tables that all workspaces share."""

    storage = "PGTableGraphStorage"
    mine = "workspace = $1"
    _read = f"{mine} AND namespace = '{GRAPH_NAMESPACE}'"
    """What LightRAG sees of it: a row under another namespace is not there for it, and so not for us."""

    def owner(self, workspace: str) -> str:
        return workspace

    def relation(self, namespace: str, workspace: str) -> str:
        return TABLES[namespace].name

    def shape(self, namespace: str) -> Shape:
        return Shape(namespace)

    def encoder(self, namespace: str, workspace: str) -> Encoder:
        return Encoder(Shape(namespace), workspace)

    def decoder(self, namespace: str) -> Decoder:
        return Decoder(Shape(namespace))

    def query(self, namespace: str, workspace: str, present: Physical, skip: int) -> str:
        table = TABLES[namespace]
        selected = ", ".join(expressions(table, self.decoder(namespace).select, present))
        condition = self._read if "namespace" in present.columns else self.mine
        return f"SELECT {selected} FROM {table.name} WHERE {condition} OFFSET {int(skip)}"

    async def load(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, data: bytes, records: int
    ) -> None:
        columns = self.encoder(namespace, workspace).columns
        await while_open(
            opened,
            opened.copy_to_table(TABLES[namespace].name, source=once(data), columns=columns, format="binary"),
        )

    async def put(self, opened: asyncpg.Connection, workspace: str, batch: Batch) -> None:
        encoder = self.encoder(batch.namespace, workspace)
        await upsert(
            opened,
            TABLES[batch.namespace].name,
            encoder.columns,
            _KEYS[batch.namespace],
            encoder.encode(batch),
        )

    async def remove(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, keys: Sequence[str]
    ) -> None:
        condition, chosen = _chosen(namespace, keys)
        await opened.execute(
            f"DELETE FROM {TABLES[namespace].name} WHERE workspace = $1 AND {condition}", workspace, *chosen
        )

    def chosen(
        self, namespace: str, workspace: str, keys: Sequence[str]
    ) -> tuple[str, tuple[list[str], ...]]:
        condition, chosen = _chosen(namespace, keys)
        columns = ", ".join(self.decoder(namespace).select)
        return f"SELECT {columns} FROM {TABLES[namespace].name} WHERE {self._read} AND {condition}", chosen

    async def keys(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, at_once: int
    ) -> AsyncIterator[str]:
        key = f"src_id || '{EDGE_SEPARATOR}' || tgt_id" if namespace == "edges" else "id"
        query = f"SELECT {key} FROM {TABLES[namespace].name} WHERE {self._read}"
        async for row in opened.cursor(query, workspace, prefetch=at_once):
            yield row[0]


_KEYS = {
    "nodes": ["workspace", "namespace", "id"],
    "edges": ["workspace", "namespace", "src_id", "tgt_id"],
}
_EDGES = "(src_id, tgt_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))"
_ROWS = "id = ANY($2::text[])"


def _chosen(namespace: str, keys: Sequence[str]) -> tuple[str, tuple[list[str], ...]]:
    """(condition, its arguments) for some keys of a namespace."""
    return (_EDGES, ends_of(keys)) if namespace == "edges" else (_ROWS, (list(keys),))


async def upsert(
    opened: asyncpg.Connection, table: str, columns: Sequence[str], key: Sequence[str], data: bytes
) -> None:
    """Through a temporary table, because an edge hangs on its node: a node must be updated, never removed.

    A column that has no field (when a node was written) takes its default.
    """
    values = ", ".join(f"{column} = EXCLUDED.{column}" for column in columns if column not in key)
    names = ", ".join(columns)
    await opened.execute(f"CREATE TEMPORARY TABLE patch (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
    await while_open(
        opened, opened.copy_to_table("patch", source=once(data), columns=list(columns), format="binary")
    )
    await opened.execute(
        f"INSERT INTO {table} ({names}) SELECT {names} FROM patch "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {values}"
    )


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


IN_TABLES: Graph = TableGraph()


def relation(namespace: str, workspace: str, embedding: Embedding, graph: Graph) -> str:
    """What to write after FROM for any namespace."""
    if namespace in STREAMS:
        return graph.relation(namespace, workspace)
    return table_name(namespace, embedding)


def relations(workspace: str, embedding: Embedding, slots: Collection[Slot], graph: Graph) -> dict[str, str]:
    """The relations of some slots by namespace, in copy order."""
    return {name: relation(name, workspace, embedding, graph) for name in streams_of(slots)}


def mine(namespace: str, graph: Graph) -> str:
    """The condition on the rows of the workspace, which is $1."""
    return graph.mine if namespace in STREAMS else "workspace = $1"
