"""What tells one state of a workspace's rows from another: cheap, and blind to the neighbours in the same tables.

A row's version has its place (ctid) and the transaction that wrote it (xmin). Together they change with every insert,
update and delete that commits, and no two states have the same set of them. Only the table itself is scanned, not what
it stores out of line. VACUUM and FREEZE leave both alone; VACUUM FULL, CLUSTER and a restored dump may move rows, which
reads as a change: the safe side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from hybridrag.model.data import Slot
from hybridrag.model.facts import digest_of
from hybridrag.model.selection import Embedding

from . import carried
from .catalog import Physical, physical
from .copy_binary import Decoder
from .graphs import IN_TABLES, Graph, mine, relations
from .rows import Shape
from .tables import TABLES


@dataclass(frozen=True, slots=True)
class Tally:
    """One namespace of a workspace: its rows, what they take (bytes, as stored), and what their versions add up to."""

    rows: int
    size: int
    versions: int


async def tally(
    opened: asyncpg.Connection,
    namespace: str,
    table: str,
    present: Physical,
    workspace: str,
    graph: Graph = IN_TABLES,
) -> Tally:
    """Count a namespace's rows in one scan of its table."""
    columns = [name for name in Decoder(Shape(namespace)).select if name in present.columns]
    held = " + ".join(f"coalesce(pg_column_size({name}), 0)" for name in columns)
    row = await opened.fetchrow(
        f"SELECT count(*), coalesce(sum({held}), 0)::bigint, "
        f"coalesce(bit_xor(hashtidextended(ctid, xmin::text::bigint)), 0) FROM {table} WHERE {mine(namespace, graph)}",
        workspace,
    )
    return Tally(*row)


async def fingerprint_of(
    opened: asyncpg.Connection,
    workspace: str,
    present: Mapping[str, Physical],
    tallies: Mapping[str, Tally],
) -> str:
    """The fingerprint from what was tallied, by namespace. The same database on a replica has the same one."""
    place = await opened.fetchval("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")
    state: dict[str, list[Any]] = {
        name: [present[name].identity, found.rows, found.versions]
        for name, found in tallies.items()
        if found.rows or not TABLES[name].ours
    }
    for name, found in (await carried.versions(opened, workspace)).items():
        if name in tallies:
            state[f"carried/{name}"] = found
    return digest_of([place, workspace, state])


async def tally_all(
    opened: asyncpg.Connection,
    workspace: str,
    embedding: Embedding,
    slots: Collection[Slot],
    graph: Graph = IN_TABLES,
) -> tuple[dict[str, Physical], dict[str, Tally]]:
    """(tables, tallies) by namespace, of those namespaces that have a table."""
    tables = relations(workspace, embedding, slots, graph)
    there = await physical(opened, tables.values())
    present = {name: there[table] for name, table in tables.items() if table in there}
    tallies = {
        name: await tally(opened, name, tables[name], found, workspace, graph)
        for name, found in present.items()
    }
    return present, tallies
