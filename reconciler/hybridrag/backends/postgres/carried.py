"""What LightRAG's tables have no place for, in tables of ours: fields without a column, records of other stores.

A row of `carried` belongs to one record, by workspace, stream and key; it is written, changed and deleted together with it. Where
LightRAG deleted the record its row stays behind, and nobody reads it. The fields are JSON text, not JSONB, which takes
no NUL character.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import asyncpg

from .client import while_open

DDL = """
CREATE TABLE IF NOT EXISTS hybridrag_ledger.carried (
    workspace text NOT NULL,
    namespace text NOT NULL,
    key       text NOT NULL,
    fields    text NOT NULL,
    PRIMARY KEY (workspace, namespace, key)
);
CREATE TABLE IF NOT EXISTS hybridrag_ledger.other_stores (
    workspace text NOT NULL,
    id        text NOT NULL,
    record    text,
    PRIMARY KEY (workspace, id)
);
"""
_TABLE = "hybridrag_ledger.carried"
_COLUMNS = ("workspace", "namespace", "key", "fields")
_VISIBLE = """
SELECT EXISTS (
    SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'hybridrag_ledger' AND c.relname = 'carried'
      AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
"""


async def carries(opened: asyncpg.Connection, workspace: str, namespace: str) -> bool:
    """Whether anything is kept beside records of a stream."""
    if not await opened.fetchval(_VISIBLE):
        return False
    query = f"SELECT EXISTS (SELECT 1 FROM {_TABLE} WHERE workspace = $1 AND namespace = $2)"
    return bool(await opened.fetchval(query, workspace, namespace))


def with_carried(query: str, namespace: str) -> str:
    """A query for rows of a stream, which have an `id`, with the text of what is kept beside each as its last column.

    `query` must end with OFFSET, so that its rows keep their order. The workspace is $1.
    """
    own = f"c.workspace = $1 AND c.namespace = '{namespace}' AND c.key = r.id"
    return f"SELECT r.*, (SELECT c.fields FROM {_TABLE} c WHERE {own}) FROM ({query}) AS r"


async def load(opened: asyncpg.Connection, data: bytes | None) -> None:
    """Add the rows of a batch that `Encoder.beside` made, inside the transaction of the batch."""
    if data is None:
        return

    async def once() -> AsyncIterator[bytes]:
        yield data

    operation = opened.copy_to_table(
        "carried", source=once(), columns=list(_COLUMNS), format="binary", schema_name="hybridrag_ledger"
    )
    await while_open(opened, operation)


async def replace(
    opened: asyncpg.Connection, workspace: str, namespace: str, keys: Sequence[str], data: bytes | None
) -> None:
    """What is kept beside these records is from now on in `data`, inside the transaction that changes them."""
    await remove(opened, workspace, namespace, keys)
    await load(opened, data)


async def remove(opened: asyncpg.Connection, workspace: str, namespace: str, keys: Sequence[str]) -> None:
    await opened.execute(
        f"DELETE FROM {_TABLE} WHERE workspace = $1 AND namespace = $2 AND key = ANY($3::text[])",
        workspace,
        namespace,
        list(keys),
    )


async def forget(opened: asyncpg.Connection, workspace: str, namespaces: Collection[str]) -> None:
    """Delete all that is kept beside the records of some streams."""
    if await opened.fetchval(f"SELECT to_regclass('{_TABLE}')") is None:
        return
    await opened.execute(
        f"DELETE FROM {_TABLE} WHERE workspace = $1 AND namespace = ANY($2::text[])",
        workspace,
        list(namespaces),
    )


async def versions(opened: asyncpg.Connection, workspace: str) -> Mapping[str, list[int]]:
    """By stream: how many rows there are, and what their versions add up to (see `fingerprint.py`)."""
    if not await opened.fetchval(_VISIBLE):
        return {}
    rows = await opened.fetch(
        "SELECT namespace, count(*) AS rows, bit_xor(hashtidextended(ctid, xmin::text::bigint)) AS versions "
        f"FROM {_TABLE} WHERE workspace = $1 GROUP BY namespace ORDER BY namespace",
        workspace,
    )
    return {row["namespace"]: [row["rows"], row["versions"]] for row in rows}
