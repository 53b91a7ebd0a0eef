"""What Postgres cannot hold is refused in words that name the field and never the value; the rest has one form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hybridrag.backends.postgres.rows import Shape, printable
from hybridrag.backends.postgres.tables import TABLES, index_name, table_name
from hybridrag.model.data import EDGE_SEPARATOR, Batch
from hybridrag.model.findings import Examination
from hybridrag.model.selection import Embedding
from tests.support.streams import NAMES

VALUE = "topsecret"


def examine(namespace: str, key: str, **fields: Any) -> tuple[Batch, Examination]:
    into = Examination()
    batch = Batch(namespace=namespace, position=1, keys=[key], fields=[fields])
    if TABLES[namespace].vector:
        batch.vectors = np.ones((1, 2), dtype=np.float32)
    return Shape(namespace).examine(batch, into), into


def nested(depth: int) -> Any:
    value: Any = VALUE
    for _ in range(depth):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    ("namespace", "key", "fields", "words"),
    [
        ("full_docs", "k", {"content": VALUE + "\0"}, "content contains a NUL"),
        ("full_docs", "k", {"content": VALUE + "\ud800"}, "lone surrogate"),
        ("full_docs", "k", {"content": 7}, "content is not text"),
        ("full_docs", "k", {"file_path": VALUE * 200}, "file_path has 1,800 characters, doc_name takes 1024"),
        ("full_docs", VALUE * 40, {}, "its key has 360 characters, lightrag_doc_full.id takes 255"),
        ("full_docs", VALUE + "\0", {}, "its key contains a NUL"),
        ("full_docs", "k\ud800", {}, "its key contains a lone surrogate"),
        ("full_docs", "k", {"create_time": VALUE}, "create_time is not a time"),
        ("full_docs", "k", {"create_time": True}, "create_time is not a time"),
        ("full_docs", "k", {"create_time": -1}, "create_time is not a time"),
        ("text_chunks", "k", {"tokens": 2**31}, "tokens is not a 32-bit integer"),
        ("text_chunks", "k", {"tokens": 1.5}, "tokens is not a 32-bit integer"),
        ("text_chunks", "k", {"heading": {VALUE: "\0"}}, "heading contains a NUL"),
        ("text_chunks", "k", {"heading": {VALUE: float("nan")}}, "heading contains NaN"),
        (
            "text_chunks",
            "k",
            {"heading": {VALUE: 2**65 + 1}},
            "heading contains an integer of more than 64 bits",
        ),
        ("text_chunks", "k", {"heading": {VALUE: "\udc00"}}, "heading contains a lone surrogate"),
        ("text_chunks", "k", {"heading": nested(130)}, "nested deeper than 250 levels"),
        ("text_chunks", "k", {"heading": nested(20_000)}, "nested deeper than 250 levels"),
        ("doc_status", "k", {"created_at": VALUE}, "created_at is not an ISO 8601 time"),
        (
            "doc_status",
            "k",
            {"created_at": "0001-01-01T00:00:00+14:00"},
            "created_at is not an ISO 8601 time",
        ),
        ("doc_status", "k", {"file_path": VALUE * 300}, "file_path has 2,700 bytes, its index takes"),
        ("entities", "k", {"source_id": "a<SEP>" + VALUE * 40}, "source_id holds an id of 360 characters"),
        ("nodes", VALUE * 300, {}, "its key has 2,700 bytes, a graph key takes"),
        ("nodes", "k", {VALUE + "\0": 1}, "a property contains a NUL"),
        ("edges", f"a{EDGE_SEPARATOR}b", {"weight": float("inf")}, "NaN or Infinity"),
    ],
)
def test_a_refusal_names_the_field_and_the_reason_but_not_the_value(
    namespace: str, key: str, fields: dict[str, Any], words: str
) -> None:
    """The record is left out and counted; what is told may go into a log."""
    form, into = examine(namespace, key, **fields)
    assert (len(form), into.refused_total) == (0, 1)
    ((where, shown, reason),) = into.refused
    assert where == namespace
    assert words in reason
    assert VALUE not in reason
    assert shown.isprintable()
    assert len(shown) <= 120


@pytest.mark.parametrize(
    ("namespace", "given", "wanted"),
    [
        ("full_docs", {"content": "", "chunk_options": {}, "file_path": None}, {}),
        ("full_docs", {"create_time": 1.5, "update_time": 7}, {"create_time": 2, "update_time": 7}),
        ("llm_response_cache", {"queryparam": {}, "return": "x"}, {"return": "x"}),
        ("llm_response_cache", {"queryparam": []}, {"queryparam": []}),
        ("doc_status", {"chunks_count": -1, "chunks_list": [], "error_msg": ""}, {"error_msg": ""}),
        (
            "doc_status",
            {"created_at": "2024-01-01T02:00:00+02:00"},
            {"created_at": "2024-01-01T00:00:00.000000+00:00"},
        ),
        (
            "doc_status",
            {"created_at": "2024-01-01T00:00:00Z"},
            {"created_at": "2024-01-01T00:00:00.000000+00:00"},
        ),
        (
            "doc_status",
            {"created_at": "2024-01-01T00:00:00"},
            {"created_at": "2024-01-01T00:00:00.000000+00:00"},
        ),
        ("text_chunks", {"tokens": 3.0, "heading": {"level": 1.0}}, {"tokens": 3, "heading": {"level": 1}}),
        ("nodes", {"entity_id": "other", "weight": -0.0}, {"entity_id": "k", "weight": 0}),
        ("entities", {"source_id": ""}, {"source_id": ""}),
    ],
)
def test_a_record_has_one_form_in_postgres(
    namespace: str, given: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """What LightRAG writes for an absent field reads back as absent; times and numbers have one spelling."""
    form, into = examine(namespace, "k", **given)
    assert into.refused == []
    assert repr(form.fields[0]) == repr(wanted)


def test_fields_without_a_column_are_counted_by_name_and_kept() -> None:
    """The graph keeps all its fields; the other tables have fixed columns, and what has none is kept beside them."""
    form, into = examine("doc_status", "k", status="processed", multimodal_content=[1.0], scheme_name=None)
    assert form.fields == [{"status": "processed", "multimodal_content": [1], "scheme_name": None}]
    assert into.carried == {("doc_status", "multimodal_content"): 1, ("doc_status", "scheme_name"): 1}
    assert (into.carried_by, into.lost) == ({"doc_status": 1}, {})
    _, into = examine("nodes", "k", anything="x")
    assert (into.carried, into.lost) == ({}, {})


def test_only_the_first_refusals_are_listed_and_all_are_counted() -> None:
    """A database full of bad records must not fill the memory or the screen."""
    into = Examination()
    keys = [f"k{n}" for n in range(100)]
    batch = Batch(
        namespace="full_docs", position=100, keys=keys, fields=[{"content": n % 2 or "x"} for n in range(100)]
    )
    form = Shape("full_docs").examine(batch, into)
    assert (len(form), into.refused_total, len(into.refused)) == (50, 50, 20)
    assert form.keys == keys[::2]


def test_the_vectors_of_refused_records_are_left_out_with_them() -> None:
    """Keys, fields and vectors stay aligned."""
    vectors = np.array([[1, 1], [np.nan, 2], [3, 3]], dtype=np.float32)
    batch = Batch(namespace="chunks", position=3, keys=["a", "b", "c"], fields=[{}, {}, {}], vectors=vectors)
    into = Examination()
    form = Shape("chunks").examine(batch, into)
    assert form.keys == ["a", "c"]
    assert form.vectors is not None
    assert form.vectors.tolist() == [[1, 1], [3, 3]]
    assert into.refused == [("chunks", "b", "its vector contains NaN or Infinity")]


def test_a_key_is_shown_without_control_characters() -> None:
    """Terminals and logs are safe from what a record is called."""
    assert printable(f"Zoë{EDGE_SEPARATOR}李明") == "Zoë ~ 李明"
    assert printable("a\x1b[31m\n\ud800") == "a\\x1b[31m\\n\\ud800"
    assert len(printable("x" * 500)) == 120


def test_tables_and_indexes_are_called_as_lightrag_calls_them() -> None:
    """The model's suffix, and LightRAG's way with names that Postgres would cut off."""
    from lightrag.base import BaseVectorStorage
    from lightrag.kg.postgres_impl import NAMESPACE_TABLE_MAP, _safe_index_name

    for model in ("text-embedding-3-small", "BAAI/bge-m3", "x" * 40, " padded "):
        embedding = Embedding(model=model, dim=1024)
        storage: Any = SimpleNamespace(embedding_func=SimpleNamespace(model_name=model, embedding_dim=1024))
        suffix = BaseVectorStorage._generate_collection_suffix(storage)
        for namespace in NAMES:
            table = table_name(namespace, embedding)
            if not TABLES[namespace].graph:
                assert table.startswith(NAMESPACE_TABLE_MAP[namespace].lower())
            assert table.endswith(f"_{suffix}") == TABLES[namespace].vector
            assert index_name(table) == _safe_index_name(table, "hnsw_cosine")
    for nameless in (None, "", "  "):
        assert table_name("chunks", Embedding(model=nameless, dim=3)) == "lightrag_vdb_chunks"
