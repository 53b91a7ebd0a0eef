"""LightRAG's tables as they physically are in one database: which exist, with which columns, of which types.

A source may have been made by an older LightRAG: columns that are missing read as absent, and types that changed since
are cast by the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from .tables import Column, Kind, Table

_OURS_TO_READ = r"""
EXISTS (SELECT FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
        WHERE n.nspname = 'hybridrag_ledger' AND c.relname = split_part({name}, '.', 2)
          AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
"""


def there(name: str) -> str:
    """A table by its name, an SQL expression; NULL where it is not there, or is one of ours that this user may not read."""
    readable = _OURS_TO_READ.format(name=name)
    return f"CASE WHEN starts_with({name}, 'hybridrag_ledger.') AND NOT {readable} THEN NULL ELSE to_regclass({name}) END"


_COLUMNS = f"""
SELECT named.name, a.attrelid::bigint AS oid, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod) AS type
FROM unnest($1::text[]) AS named(name) JOIN pg_attribute a ON a.attrelid = {there("named.name")}
WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum
"""
_DIMENSIONS = re.compile(r"(?:^|\.)(?:vector|halfvec)\((\d+)\)$")


@dataclass(frozen=True, slots=True)
class Physical:
    """One table: its columns' types by name. `identity` is another one's for a table made anew, or with other columns."""

    columns: dict[str, str]
    identity: str

    @property
    def vector_type(self) -> str | None:
        """`vector` or `halfvec`, whatever schema the extension lives in."""
        kind = self.columns.get("content_vector")
        return kind.partition("(")[0].rpartition(".")[2] if kind else None

    @property
    def dim(self) -> int | None:
        found = _DIMENSIONS.search(self.columns.get("content_vector", ""))
        return int(found[1]) if found else None


async def physical(opened: asyncpg.Connection, names: Iterable[str]) -> dict[str, Physical]:
    """Those of the named tables that exist."""
    found: dict[str, Physical] = {}
    for row in await opened.fetch(_COLUMNS, list(names)):
        before = found.get(row["name"])
        columns = {**(before.columns if before else {}), row["attname"]: row["type"]}
        identity = (
            f"{before.identity if before else row['oid']} {row['attnum']}:{row['attname']}:{row['type']}"
        )
        found[row["name"]] = Physical(columns, identity)
    return found


def expressions(table: Table, selected: list[str], present: Physical) -> list[str]:
    """The selected columns as SQL expressions of the types that the decoder expects."""
    known = {column.name: column for column in table.columns}
    return [_expression(name, known.get(name), present.columns.get(name)) for name in selected]


def _expression(name: str, column: Column | None, kind: str | None) -> str:
    if kind is None:
        return "NULL"
    if name == "content_vector" or column is None:
        return f"{name}::vector" if name == "content_vector" else name
    if column.kind in (Kind.EPOCH, Kind.ISO) and "with time zone" in kind:
        return f"{name} AT TIME ZONE 'UTC'"
    if column.kind is Kind.JSON and kind != "jsonb":
        return f"{name}::jsonb"
    if column.kind is Kind.INT and kind != "integer":
        return f"{name}::integer"
    return name
