"""Where LightRAG keeps each namespace in Postgres: one declarative list, read by everything that reads or writes.

Source: `lightrag/kg/postgres_impl.py` (TABLES, SQL_TEMPLATES) and `pgtable_impl.py` (_DDL), 1.5.7. A column says which
field of the record it holds, in which form, and what LightRAG itself writes when the field is absent.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridrag.model.selection import Embedding

SEPARATOR = "<SEP>"
"""LightRAG's GRAPH_FIELD_SEP: joins chunk ids inside one text field."""
GRAPH_NAMESPACE = "chunk_entity_relation"
IDENTIFIER_BYTES = 63
BTREE_BYTES = 2704
"""Largest B-tree row of Postgres; the graph's text keys and indexed texts must stay below it."""
BTREE_TEXT_BYTES = BTREE_BYTES - 200
"""What is left for the text itself beside the workspace and the row's own bytes."""


class Kind(enum.Enum):
    """The form of a column; `rows.py` knows how each is written and read."""

    TEXT = "text"
    INT = "int"
    JSON = "json"
    EPOCH = "epoch"  # whole seconds since 1970 <-> timestamp without time zone, UTC
    ISO = "iso"  # ISO 8601 text <-> timestamp without time zone, UTC, microseconds
    JOINED = "joined"  # text joined by <SEP> <-> varchar[]
    RAW = "raw"  # any JSON <-> text, which also takes a NUL character


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `absent` is what LightRAG writes for a missing or null field; such a value reads back as missing.

    `limit` is in characters (varchar), per element for arrays. An `indexed` text must also fit into a B-tree row.
    """

    name: str
    field: str
    kind: Kind = Kind.TEXT
    limit: int | None = None
    absent: Any = None
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One namespace's table. Vector tables take the model's suffix; graph tables keep all fields in `properties`.

    One of `ours` is no table of LightRAG's: it need not be there, and holds nothing where it is not.
    """

    name: str
    columns: tuple[Column, ...]
    key_limit: int | None = 255
    vector: bool = False
    graph: bool = False
    ours: bool = False


_TIMES = (Column("create_time", "create_time", Kind.EPOCH), Column("update_time", "update_time", Kind.EPOCH))
_VECTOR_TIMES = (Column("create_time", "created_at", Kind.EPOCH),)


def _lists(name: str, field: str, key_limit: int) -> Table:
    columns = (Column(field, field, Kind.JSON, absent=[]), Column("count", "count", Kind.INT), *_TIMES)
    return Table(name, columns, key_limit)


TABLES: Mapping[str, Table] = {
    "full_docs": Table(
        "lightrag_doc_full",
        (
            Column("doc_name", "file_path", limit=1024, absent=""),
            Column("content", "content", absent=""),
            Column("sidecar_location", "sidecar_location"),
            Column("parse_format", "parse_format", limit=32),
            Column("content_hash", "content_hash"),
            Column("process_options", "process_options"),
            Column("chunk_options", "chunk_options", Kind.JSON, absent={}),
            Column("parse_engine", "parse_engine"),
            *_TIMES,
        ),
    ),
    "text_chunks": Table(
        "lightrag_doc_chunks",
        (
            Column("full_doc_id", "full_doc_id", limit=256),
            Column("chunk_order_index", "chunk_order_index", Kind.INT),
            Column("tokens", "tokens", Kind.INT),
            Column("content", "content", absent=""),
            Column("file_path", "file_path"),
            Column("llm_cache_list", "llm_cache_list", Kind.JSON, absent=[]),
            Column("heading", "heading", Kind.JSON, absent={}),
            Column("sidecar", "sidecar", Kind.JSON, absent={}),
            *_TIMES,
        ),
    ),
    "llm_response_cache": Table(
        "lightrag_llm_cache",
        (
            Column("original_prompt", "original_prompt", absent=""),
            Column("return_value", "return", absent=""),
            Column("chunk_id", "chunk_id", limit=255),
            Column("cache_type", "cache_type", limit=32),
            Column("queryparam", "queryparam", Kind.JSON),
            *_TIMES,
        ),
    ),
    "full_entities": _lists("lightrag_full_entities", "entity_names", 255),
    "full_relations": _lists("lightrag_full_relations", "relation_pairs", 255),
    "entity_chunks": _lists("lightrag_entity_chunks", "chunk_ids", 512),
    "relation_chunks": _lists("lightrag_relation_chunks", "chunk_ids", 512),
    "other_stores": Table(
        "hybridrag_ledger.other_stores", (Column("record", "value", Kind.RAW),), None, ours=True
    ),
    "doc_status": Table(
        "lightrag_doc_status",
        (
            Column("content_summary", "content_summary", limit=255),
            Column("content_length", "content_length", Kind.INT),
            Column("chunks_count", "chunks_count", Kind.INT, absent=-1),
            Column("status", "status", limit=64),
            Column("file_path", "file_path", indexed=True),
            Column("chunks_list", "chunks_list", Kind.JSON, absent=[]),
            Column("track_id", "track_id", limit=255),
            Column("metadata", "metadata", Kind.JSON, absent={}),
            Column("error_msg", "error_msg"),
            Column("content_hash", "content_hash", indexed=True),
            Column("created_at", "created_at", Kind.ISO),
            Column("updated_at", "updated_at", Kind.ISO),
        ),
    ),
    "nodes": Table("lightrag_graph_nodes", (), None, graph=True),
    "edges": Table("lightrag_graph_edges", (), None, graph=True),
    "entities": Table(
        "lightrag_vdb_entity",
        (
            Column("entity_name", "entity_name", limit=512),
            Column("content", "content"),
            Column("chunk_ids", "source_id", Kind.JOINED, limit=255),
            Column("file_path", "file_path"),
            *_VECTOR_TIMES,
        ),
        vector=True,
    ),
    "relationships": Table(
        "lightrag_vdb_relation",
        (
            Column("source_id", "src_id", limit=512),
            Column("target_id", "tgt_id", limit=512),
            Column("content", "content"),
            Column("chunk_ids", "source_id", Kind.JOINED, limit=255),
            Column("file_path", "file_path"),
            *_VECTOR_TIMES,
        ),
        vector=True,
    ),
    "chunks": Table(
        "lightrag_vdb_chunks",
        (
            Column("full_doc_id", "full_doc_id", limit=256),
            Column("content", "content"),
            Column("file_path", "file_path"),
            *_VECTOR_TIMES,
        ),
        vector=True,
    ),
}


def table_name(namespace: str, embedding: Embedding) -> str:
    """Physical table of a namespace; vector tables carry LightRAG's model suffix (`base.py`, EmbeddingFunc)."""
    table = TABLES[namespace]
    suffix = embedding.suffix if table.vector else None
    return f"{table.name}_{suffix}" if suffix else table.name


def index_name(table: str, kind: str = "hnsw_cosine") -> str:
    """Name of LightRAG's vector index on a table (`_safe_index_name`); another name would make it build a second."""
    name = f"idx_{table.lower()}_{kind}"
    if len(name.encode()) <= IDENTIFIER_BYTES:
        return name
    digest = hashlib.md5(table.lower().encode(), usedforsecurity=False).hexdigest()[:12]
    return f"idx_{digest}_{kind}"
