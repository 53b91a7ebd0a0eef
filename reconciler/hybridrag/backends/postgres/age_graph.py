"""LightRAG's PGGraphStorage: a graph of its own in Apache AGE for every workspace, read and written by plain SQL.

AGE has no unique keys and no direction that LightRAG would heed, so one pair may have several edges: equal ones are
read as one, others are a record that stands twice. Everything of AGE is named with its schema: a `search_path` set for
it would lead the statements after it astray.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import asyncpg

from hybridrag.errors import BackendUnavailable
from hybridrag.model.data import EDGE_SEPARATOR, Batch

from .age import label
from .agtype import AgeDecoder, AgeEncoder, AgeShape, parse
from .catalog import Physical
from .client import while_open
from .graphs import ends_of, once
from .isolation import graph_name

_IS = "OPERATOR(ag_catalog.=)"
_NAME = "ag_catalog.agtype_access_operator({of}.properties, '\"entity_id\"'::ag_catalog.agtype)"
"""The expression that LightRAG's own index on nodes is of."""
_AGTYPE = "ag_catalog.agtype_in(textout(to_json({name}::text)::text))"
_PAIR = "least(start_id, end_id), greatest(start_id, end_id)"
_REPEATED = f"""
SELECT id FROM (
    SELECT e.id, row_number() OVER (PARTITION BY d.one, d.other, textin(ag_catalog.agtype_out(e.properties))
                                    ORDER BY e.id DESC) AS n
    FROM {{edges}} e JOIN (SELECT {_PAIR} FROM {{edges}} GROUP BY 1, 2 HAVING count(*) > 1) AS d (one, other)
    ON least(e.start_id, e.end_id) {_IS} d.one AND greatest(e.start_id, e.end_id) {_IS} d.other
) AS several WHERE n > 1
"""
"""Edges that say nothing but what another one of the same pair says; of equal ones the last stays."""


def _name(of: str) -> str:
    return _NAME.format(of=of)


def _text(value: str) -> str:
    return f"textin(ag_catalog.agtype_out({value}))"


def _id(of: str) -> str:
    return f"textin(ag_catalog.graphid_out({of}.id))"


class AgeGraph:
    """See `graphs.Graph`. A graph's relations hold nobody else's rows."""

    storage = "PGGraphStorage"
    mine = "$1::text IS NOT NULL"

    def owner(self, workspace: str) -> str:
        """The graph itself, as workspaces may share one; no workspace can have a "/" in its name."""
        return f"age/{graph_name(workspace)}"

    def relation(self, namespace: str, workspace: str) -> str:
        return label(namespace, workspace)

    def shape(self, namespace: str) -> AgeShape:
        return AgeShape(namespace)

    def encoder(self, namespace: str, workspace: str) -> AgeEncoder:
        return AgeEncoder(AgeShape(namespace))

    def decoder(self, namespace: str) -> AgeDecoder:
        return AgeDecoder(namespace)

    def query(self, namespace: str, workspace: str, present: Physical, skip: int) -> str:
        """Nodes as they lie; edges by id, as no join keeps an order."""
        nodes, edges = label("nodes", workspace), label("edges", workspace)
        if namespace == "nodes":
            return f"SELECT {_id('v')}, {_text('v.properties')} FROM {nodes} v WHERE {self.mine} OFFSET {int(skip)}"
        return (
            f"WITH repeated AS MATERIALIZED ({_REPEATED.format(edges=edges)}) "
            f"SELECT {_id('s')}, {_text('s.src')}, {_text('s.tgt')}, {_text('s.properties')} FROM ("
            f"SELECT e.id, {_name('a')} AS src, {_name('b')} AS tgt, e.properties FROM {edges} e "
            f"LEFT JOIN {nodes} a ON a.id {_IS} e.start_id LEFT JOIN {nodes} b ON b.id {_IS} e.end_id "
            f"WHERE {self.mine} AND NOT EXISTS (SELECT 1 FROM repeated r WHERE r.id {_IS} e.id) "
            f"ORDER BY e.id OFFSET {int(skip)}) AS s"
        )

    async def load(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, data: bytes, records: int
    ) -> None:
        if namespace == "nodes":
            await self._copy(opened, "base", data, ["properties"], schema=graph_name(workspace))
            return
        await self._stage(opened, data)
        if await self._insert_edges(opened, workspace) != records:
            raise BackendUnavailable(
                f'an edge of the graph "{graph_name(workspace)}" leads to a node that does not exist, or exists twice',
                hint="add the node to the source or remove the edge, then run hybridrag apply",
            )

    async def _copy(
        self,
        opened: asyncpg.Connection,
        table: str,
        data: bytes,
        columns: list[str],
        schema: str | None = None,
    ) -> None:
        # The label table makes the id itself, from its own sequence.
        operation = opened.copy_to_table(
            table, source=once(data), columns=columns, format="binary", schema_name=schema
        )
        await while_open(opened, operation)

    async def _stage(self, opened: asyncpg.Connection, data: bytes) -> None:
        await opened.execute(
            "CREATE TEMPORARY TABLE patch (src ag_catalog.agtype, tgt ag_catalog.agtype, "
            "properties ag_catalog.agtype) ON COMMIT DROP"
        )
        await self._copy(opened, "patch", data, ["src", "tgt", "properties"])

    async def _insert_edges(self, opened: asyncpg.Connection, workspace: str) -> int:
        nodes = label("nodes", workspace)
        done = await opened.execute(
            f"INSERT INTO {label('edges', workspace)} (start_id, end_id, properties) "
            f"SELECT a.id, b.id, p.properties FROM pg_temp.patch p JOIN {nodes} a ON {_name('a')} {_IS} p.src "
            f"JOIN {nodes} b ON {_name('b')} {_IS} p.tgt"
        )
        return int(done.rpartition(" ")[2])

    async def put(self, opened: asyncpg.Connection, workspace: str, batch: Batch) -> None:
        data = self.encoder(batch.namespace, workspace).encode(batch)
        if batch.namespace == "edges":
            await self._delete_edges(opened, workspace, batch.keys)
            await self.load(opened, "edges", workspace, data, len(batch))
            return
        nodes = label("nodes", workspace)
        await opened.execute("CREATE TEMPORARY TABLE patch (properties ag_catalog.agtype) ON COMMIT DROP")
        await self._copy(opened, "patch", data, ["properties"])
        await opened.execute(
            f"UPDATE {nodes} v SET properties = p.properties FROM pg_temp.patch p WHERE {_name('v')} {_IS} {_name('p')}"
        )
        await opened.execute(
            f"INSERT INTO {nodes} (properties) SELECT p.properties FROM pg_temp.patch p WHERE NOT EXISTS ("
            f"SELECT 1 FROM {nodes} v WHERE {_name('v')} {_IS} {_name('p')})"
        )

    async def remove(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, keys: Sequence[str]
    ) -> None:
        """A node goes with its edges, as it does in LightRAG's tables."""
        if namespace == "edges":
            await self._delete_edges(opened, workspace, keys)
            return
        nodes, edges = label("nodes", workspace), label("edges", workspace)
        gone = f"SELECT v.id FROM {nodes} v JOIN unnest($1::text[]) AS k ON {_name('v')} {_IS} {_AGTYPE.format(name='k')}"
        async with opened.transaction():
            for end in ("start_id", "end_id"):
                await opened.execute(
                    f"DELETE FROM {edges} e USING ({gone}) AS g WHERE e.{end} {_IS} g.id", list(keys)
                )
            await opened.execute(
                f"DELETE FROM {nodes} v USING ({gone}) AS g WHERE v.id {_IS} g.id", list(keys)
            )

    async def _delete_edges(self, opened: asyncpg.Connection, workspace: str, keys: Sequence[str]) -> None:
        await opened.execute(
            f"DELETE FROM {label('edges', workspace)} e USING ({self._found(workspace, 1)}) AS f WHERE e.id {_IS} f.id",
            *ends_of(keys),
        )

    def _found(self, workspace: str, first: int) -> str:
        """The edges between named ends, whichever way they lead; the names are parameters from `first` on."""
        nodes, edges = label("nodes", workspace), label("edges", workspace)
        ways = (("a", "b"), ("b", "a"))
        parts = [
            f"SELECT e.id, {_name('a')} AS src, {_name('b')} AS tgt, e.properties "
            f"FROM unnest(${first}::text[], ${first + 1}::text[]) AS k (s, t) "
            f"JOIN {nodes} a ON {_name('a')} {_IS} {_AGTYPE.format(name='k.s')} "
            f"JOIN {nodes} b ON {_name('b')} {_IS} {_AGTYPE.format(name='k.t')} "
            f"JOIN {edges} e ON e.start_id {_IS} {start}.id AND e.end_id {_IS} {end}.id"
            for start, end in ways
        ]
        return " UNION ".join(f"({part})" for part in parts)

    def chosen(
        self, namespace: str, workspace: str, keys: Sequence[str]
    ) -> tuple[str, tuple[list[str], ...]]:
        if namespace == "nodes":
            query = (
                f"SELECT {_id('v')}, {_text('v.properties')} FROM {label('nodes', workspace)} v "
                f"JOIN unnest($2::text[]) AS k ON {_name('v')} {_IS} {_AGTYPE.format(name='k')} WHERE {self.mine}"
            )
            return query, (list(keys),)
        query = (
            f"SELECT {_id('f')}, {_text('f.src')}, {_text('f.tgt')}, {_text('f.properties')} "
            f"FROM ({self._found(workspace, 2)}) AS f WHERE {self.mine}"
        )
        return query, ends_of(keys)

    async def keys(
        self, opened: asyncpg.Connection, namespace: str, workspace: str, at_once: int
    ) -> AsyncIterator[str]:
        nodes, edges = label("nodes", workspace), label("edges", workspace)
        query = f"SELECT {_text(_name('a'))} FROM {nodes} a"
        if namespace == "edges":
            query = (
                f"SELECT {_text(_name('a'))}, {_text(_name('b'))} FROM {edges} e "
                f"JOIN {nodes} a ON a.id {_IS} e.start_id JOIN {nodes} b ON b.id {_IS} e.end_id"
            )
        async for row in opened.cursor(query, prefetch=at_once):
            names = [parse(value.encode()) for value in row if value is not None]
            if len(names) == len(row):
                yield EDGE_SEPARATOR.join(sorted(names))


IN_AGE = AgeGraph()


async def repeated_edges(opened: asyncpg.Connection, workspace: str) -> int:
    """Edges that are read together with an equal one of the same pair."""
    query = f"SELECT count(*) FROM ({_REPEATED.format(edges=label('edges', workspace))}) AS r"
    return int(await opened.fetchval(query))
