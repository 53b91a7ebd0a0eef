"""Whether LightRAG's tables, where they are there already, can keep what is copied into them; and who would interfere.

LightRAG takes any table of the right name for its own. It widens a few columns and makes times zone-free when it opens
a database (`postgres_impl.py` 1.5.7, _migrate_field_lengths, _migrate_timestamp_columns); nothing else is mended by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from hybridrag.model.facts import Facts
from hybridrag.model.selection import Embedding

from .catalog import Physical, there
from .graphs import IN_TABLES, STREAMS, Graph
from .tables import TABLES, Column, Kind

_TABLES = f"""
SELECT named.namespace, c.oid::bigint AS oid, c.oid::regclass::text AS name, c.relpersistence = 'u' AS unlogged,
       row_security_active(c.oid) AS filtered,
       ARRAY(SELECT format('trigger %I', tgname) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal
             AND tgenabled <> 'D' ORDER BY 1)
       || ARRAY(SELECT format('rule %I', rulename) FROM pg_rewrite WHERE ev_class = c.oid AND ev_type <> '1'
                AND ev_enabled <> 'D' ORDER BY 1)
       || ARRAY(SELECT format('constraint %I', conname) FROM pg_constraint WHERE conrelid = c.oid
                AND contype IN ('c', 'x') ORDER BY 1) AS interfering
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS named (namespace, relation, place)
JOIN pg_class c ON c.oid = {there("named.relation")} ORDER BY named.place
"""
_KEYS = """
SELECT i.indrelid::bigint AS oid, format('unique index %s', i.indexrelid::regclass) AS name,
       i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AS whole,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.place <= i.indnkeyatts ORDER BY 1) AS columns
FROM pg_index i WHERE i.indrelid = ANY($1::bigint[]::oid[]) AND i.indisunique
"""
_LEDGER = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'hybridrag_ledger' AND c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1
"""
_MENDED = {
    ("lightrag_vdb_entity", "entity_name"): 255,
    ("lightrag_vdb_relation", "source_id"): 256,
    ("lightrag_vdb_relation", "target_id"): 256,
    ("lightrag_doc_chunks", "file_path"): 256,
    ("lightrag_vdb_chunks", "file_path"): 256,
    ("lightrag_doc_full", "parse_engine"): 32,
}
"""Lengths of earlier versions that LightRAG widens."""
_LENGTH = re.compile(r"character varying(?:\((\d+)\))?(\[\])?$")
_USUAL_KEY = ("workspace", "id")
_KEY = {
    "nodes": ("workspace", "namespace", "id"),
    "edges": ("workspace", "namespace", "src_id", "tgt_id"),
}
"""Primary keys in LightRAG's order."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A table that is there. `name` as the server writes it in SQL."""

    namespace: str
    name: str
    unlogged: bool
    filtered: bool
    interfering: list[str]
    keyed: bool


async def soundness(
    opened: asyncpg.Connection,
    relations: Mapping[str, str],
    present: Mapping[str, Physical],
    embedding: Embedding,
    graph: Graph,
) -> Facts:
    """`refusal` and `way_out` where a table could not keep its records; `interferes` names what else acts on them."""
    found = await _tables(opened, relations, graph)
    ledger = [row[0] for row in await opened.fetch(_LEDGER)]
    faults = [*_faults(found, ledger), *_type_faults(found, present, embedding)]
    told: dict[str, str] = {}
    if faults:
        what, statements = faults[0][0], [statement for _, statement in faults]
        more = f"; {len(faults) - 1} more like it" if len(faults) > 1 else ""
        told = {
            "refusal": f"{what}{more}",
            "way_out": f"as the owner of the tables: {'; '.join(dict.fromkeys(statements))}; then run hybridrag plan",
        }
    interfering = [f"{each} on {one.name}" for one in found for each in one.interfering]
    return {**told, **({"interferes": ", ".join(interfering)} if interfering else {})}


async def unlogged(opened: asyncpg.Connection, names: Sequence[str]) -> set[str]:
    """Those of the named relations that a crash of the server empties."""
    rows = await opened.fetch(
        "SELECT n FROM unnest($1::text[]) AS n JOIN pg_class c ON c.oid = to_regclass(n) WHERE c.relpersistence = 'u'",
        names,
    )
    return {row["n"] for row in rows}


async def _tables(opened: asyncpg.Connection, relations: Mapping[str, str], graph: Graph) -> list[_Found]:
    rows = await opened.fetch(_TABLES, list(relations), list(relations.values()))
    keys = await opened.fetch(_KEYS, [row["oid"] for row in rows])
    found = []
    for row in rows:
        namespace, mine = row["namespace"], [key for key in keys if key["oid"] == row["oid"]]
        wanted = sorted(_KEY.get(namespace, _USUAL_KEY))
        in_age = namespace in STREAMS and graph is not IN_TABLES
        # A graph table of an earlier version has another key, which LightRAG replaces when it opens the database.
        keyed = in_age or any(
            key["whole"] and (key["columns"] == wanted or TABLES[namespace].graph) for key in mine
        )
        others = (
            []
            if in_age or TABLES[namespace].graph
            else [key["name"] for key in mine if key["columns"] != wanted]
        )
        found.append(
            _Found(
                namespace,
                row["name"],
                row["unlogged"],
                row["filtered"],
                [*row["interfering"], *others],
                keyed,
            )
        )
    return found


def _faults(found: Sequence[_Found], ledger: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(what, statement); nodes come before the edges that refer to them, as SET LOGGED wants it."""
    for name in (*(one.name for one in found if one.unlogged), *ledger):
        yield f"table {name} is UNLOGGED: a crash of the server empties it", f"ALTER TABLE {name} SET LOGGED"
    for one in found:
        if not one.keyed:
            key = ", ".join(_KEY.get(one.namespace, _USUAL_KEY))
            yield (
                f"table {one.name} has no primary key ({key}), without which LightRAG can neither add nor change a record",
                f"ALTER TABLE {one.name} ADD PRIMARY KEY ({key})",
            )
        if one.filtered:
            yield (
                f"row-level security holds for this user in table {one.name}, which hides rows and refuses a COPY",
                f"ALTER TABLE {one.name} DISABLE ROW LEVEL SECURITY",
            )


def _type_faults(
    found: Sequence[_Found], present: Mapping[str, Physical], embedding: Embedding
) -> Iterator[tuple[str, str]]:
    for one in found:
        table, there = TABLES[one.namespace], present.get(one.namespace)
        if there is None or table.graph:
            continue
        if table.vector and there.dim not in (None, embedding.dim):
            yield (
                f"table {one.name} holds vectors of {there.dim} dimensions, the spec says {embedding.dim}",
                f"rename it away (ALTER TABLE {one.name} RENAME TO {table.name}_{there.dim}), or correct embedding in the spec",
            )
        keys = (
            Column("workspace", "", limit=255),
            Column("id", "", limit=table.key_limit),
        )
        for column in (*keys, *table.columns):
            kind = there.columns.get(column.name)
            if kind is None or _holds(column, kind, _MENDED.get((table.name, column.name))):
                continue
            yield (
                f"column {column.name} of table {one.name} has the type {kind}, LightRAG's is {_type(column)}",
                f"ALTER TABLE {one.name} ALTER COLUMN {column.name} TYPE {_type(column)} USING {column.name}::{_type(column)}",
            )


def _type(column: Column) -> str:
    if column.kind in (Kind.TEXT, Kind.JOINED, Kind.RAW):
        plain = f"varchar({column.limit})" if column.limit else "text"
        return f"{plain}[]" if column.kind is Kind.JOINED else plain
    return {Kind.INT: "integer", Kind.JSON: "jsonb", Kind.EPOCH: "timestamp(0)", Kind.ISO: "timestamp"}[
        column.kind
    ]


def _holds(column: Column, kind: str, mended: int | None) -> bool:
    """Whether a column of this type (in `format_type`'s words) takes what LightRAG's would."""
    if column.kind is Kind.INT:
        return kind == "integer"
    if column.kind is Kind.JSON:
        return kind == "jsonb"
    if column.kind in (Kind.EPOCH, Kind.ISO):
        return kind.startswith("timestamp")
    if column.kind in (Kind.TEXT, Kind.RAW) and kind == "text":
        return True
    found = _LENGTH.match(kind)
    if found is None or bool(found[2]) != (column.kind is Kind.JOINED):
        return False
    if found[1] is None or int(found[1]) == mended:
        return True
    return column.limit is not None and int(found[1]) >= column.limit
