"""LightRAG itself on tables with another vector index than its default: it asks, inserts and deletes, and rebuilds nothing."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Project
from tests.integration.test_lightrag_answers import MODES, TOP_K, child
from tests.support.target import run_sql

COLUMNS = (
    "SELECT DISTINCT format_type(atttypid, atttypmod) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid "
    "WHERE attname = 'content_vector' AND c.relkind = 'r'"
)
INDEXES = (
    "SELECT c.relname, c.oid FROM pg_class c JOIN pg_am a ON a.oid = c.relam "
    "WHERE a.amname IN ('hnsw', 'ivfflat') ORDER BY 1"
)
NEW = {"text": "Who leads tide tables at Ōsaka Harbour?", "low": "Ōsaka Harbour", "high": "tide tables"}


@pytest.mark.parametrize(
    ("kind", "column", "indexes"),
    [
        ("hnsw_halfvec", "halfvec(96)", 3),
        pytest.param("ivfflat", "vector(96)", 3, marks=pytest.mark.slow),
        pytest.param("none", "vector(96)", 0, marks=pytest.mark.slow),
    ],
)
def test_lightrag_goes_on_with_each_index(project: Project, kind: str, column: str, indexes: int) -> None:
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(
        spec.read_text("utf-8").replace(
            "    type: postgres\n", f"    type: postgres\n    vector_index: {{type: {kind}, lists: 4}}\n"
        ),
        encoding="utf-8",
    )
    project.ok("apply", "--auto-approve")
    assert "equal" in project.ok("verify", "notes")
    assert project.dsn is not None
    made = run_sql(project.dsn, INDEXES)
    assert len(made) == indexes
    statuses = json.loads((project.data / "kv_store_doc_status.json").read_text("utf-8"))
    gone = next(iter(statuses))
    text = "The harbour. " + " ".join(
        f"«Zoë Müller» leads «tide tables» at «Ōsaka Harbour» in cycle {n}." for n in range(900, 912)
    )
    told = child(
        "edit", project.folder,
        insert=text, file="hafen_é.txt", delete=gone, delete_chunks=statuses[gone]["chunks_list"],
        questions=[NEW], modes=MODES, top_k=TOP_K,
    )  # fmt: skip
    assert (told["deletion"], told["status"], told["deleted_chunks"]) == ("success", "processed", [])
    for mode in MODES:
        chunks = told["answers"][f"{mode}: {NEW['text']}"]["chunks"]
        assert "hafen_é.txt" in {chunk["file_path"] for chunk in chunks}, mode
    assert run_sql(project.dsn, COLUMNS) == [(column,)]
    assert run_sql(project.dsn, INDEXES) == made
