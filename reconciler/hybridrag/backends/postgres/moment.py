"""A workspace as it was at one moment, and what was written to it since.

A row version carries the transaction that wrote it (xmin). All that ended before the moment are older than the oldest
one that still ran then, so every row that was written since is found by its xmin alone; of what ran at the moment some
rows may come along that were there already. What was deleted is missing among the keys. Row versions frozen long ago
may look new after 2,000,000,000 transactions: they are compared once more, nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg

from hybridrag.model.data import EDGE_SEPARATOR, Slot, streams_of
from hybridrag.model.ports import Changes, Reader

from .catalog import physical
from .graphs import IN_TABLES, ends_of
from .reading import PostgresReader
from .tables import table_name

MOST = 50_000
"""Records of a stream that may differ; beyond, reading all of it costs little more."""
_ROUND = 1 << 32
"""Transaction ids in rows have 32 bits; the first three are not those of transactions."""


def chosen_by(namespace: str, keys: Sequence[str]) -> tuple[str, tuple[list[str], ...]]:
    """(condition, its arguments) for some keys of a namespace."""
    if namespace != "edges":
        return "id = ANY($2::text[])", (list(keys),)
    return "(src_id, tgt_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))", ends_of(keys)


def key_of(namespace: str) -> str:
    """A record's key, as an SQL expression."""
    return f"src_id || '{EDGE_SEPARATOR}' || tgt_id" if namespace == "edges" else "id"


@contextlib.asynccontextmanager
async def snapshot(reader: PostgresReader) -> AsyncIterator[PostgresMoment]:
    """The server keeps old row versions for as long as the block lasts."""
    async with reader._session() as opened:
        name = await opened.fetchval("SELECT pg_export_snapshot()")
        oldest = await opened.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        yield PostgresMoment(reader, opened, name, int(oldest) % _ROUND)


class PostgresMoment(PostgresReader):
    """See `model.ports.Moment`."""

    def __init__(self, reader: PostgresReader, opened: asyncpg.Connection, name: str, oldest: int) -> None:
        super().__init__(
            reader._endpoint, reader._workspace, reader._embedding, reader._slots, name, reader._graph
        )
        self._opened = opened
        self._oldest = oldest

    async def kept(self) -> None:
        """The server sees to that, or ends the session."""

    async def prepare(self) -> None:
        """There is nothing to look up."""

    @contextlib.asynccontextmanager
    async def until(self, later: Reader) -> AsyncIterator[Changes | None]:
        # Rows of AGE are joined with one another: their own xmin does not tell everything.
        whole = Slot.GRAPH in self._slots and self._graph is not IN_TABLES
        yield await self._until(later) if isinstance(later, PostgresReader) and not whole else None

    def _newer(self, namespace: str) -> tuple[str, tuple[list[str], ...]]:
        """Rows written by transactions that had not ended at this moment."""
        xmin = "xmin::text::bigint"
        return f"({xmin} > 2 AND ({xmin} - {self._oldest} + {_ROUND}) % {_ROUND} < {_ROUND // 2})", ()

    async def _until(self, later: PostgresReader) -> Changes | None:
        tables = {name: table_name(name, self._embedding) for name in streams_of(self._slots)}
        before: dict[str, list[str]] = {}
        async with later._session() as now:
            there = await physical(now, tables.values())
            if there != await physical(self._opened, tables.values()):
                return None
            for name, table in tables.items():
                if table in there:
                    keys = await self._differing(now, name, table)
                    if keys is None:
                        return None
                    before[name] = keys
        return Changes(self._reader(self._snapshot, before), self._after(later))

    async def _differing(self, now: asyncpg.Connection, name: str, table: str) -> list[str] | None:
        """Keys of the rows of this moment that are not there any more, or may be others now; None where there are too many."""
        key, condition = key_of(name), self._newer(name)[0]
        query = f"SELECT {key} AS key FROM {table} WHERE workspace = $1"
        newer = [
            row["key"]
            for row in await now.fetch(f"{query} AND {condition} LIMIT {MOST + 1}", self._workspace)
        ]
        if len(newer) > MOST:
            return None
        chosen, given = chosen_by(name, newer)
        known = [
            row["key"] for row in await self._opened.fetch(f"{query} AND {chosen}", self._workspace, *given)
        ]
        count = f"SELECT count(*) FROM {table} WHERE workspace = $1"
        was = await self._opened.fetchval(count, self._workspace)
        if was + len(newer) - len(known) != await now.fetchval(count, self._workspace):
            gone = {row["key"] for row in await self._opened.fetch(query, self._workspace)}
            gone -= {row["key"] for row in await now.fetch(query, self._workspace)}
            known += sorted(gone)
        return known if len(known) <= MOST else None

    def _reader(self, snapshot: str | None, keys: Mapping[str, list[str]]) -> PostgresReader:
        return PostgresReader(
            self._endpoint,
            self._workspace,
            self._embedding,
            self._slots,
            snapshot,
            only=lambda namespace: chosen_by(namespace, keys.get(namespace, [])),
        )

    def _after(self, later: PostgresReader) -> PostgresReader:
        return PostgresReader(
            self._endpoint, self._workspace, self._embedding, self._slots, later._snapshot, only=self._newer
        )
