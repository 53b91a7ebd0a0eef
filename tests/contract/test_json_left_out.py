"""JSON files as the target when records of the source are left out, the first ones of every stream among them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from nano_vectordb import NanoVectorDB

from hybridrag.backends.json.graphml import edge_key
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.migrate.verifying import compare
from hybridrag.model.data import NAMESPACES, Batch
from tests.conftest import DIM
from tests.support.json_copy import IDENTITY, meter, migrate, publish, store_of

NAMES = [namespace.name for namespace in NAMESPACES]


class Streams:
    """A reader of batches that are there."""

    def __init__(self, streams: dict[str, Batch]) -> None:
        self._streams = streams

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        whole = self._streams.get(namespace, Batch(namespace=namespace, position=0))
        for start in range(skip, len(whole), rows):
            part = whole.only(range(start, min(start + rows, len(whole))))
            part.position = start + len(part)
            yield part

    async def fingerprint(self) -> str:
        return "f"

    async def unfinished(self) -> list[str]:
        return []


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
async def test_files_are_whole_when_the_first_records_of_every_stream_are_left_out(
    tmp_path: Path, rows: int
) -> None:
    """What opens a file is written once, whichever record is the first that stays; LightRAG's libraries read all of it."""
    bad = "\ud800"
    kv = Batch(namespace="full_docs", position=4, keys=["a", "b", "c", "d"],
               fields=[{"content": text} for text in (bad, bad, "x", bad)])  # fmt: skip
    nodes = Batch(namespace="nodes", position=3, keys=["n\x01", "o", "p"], fields=[{}, {}, {}])
    edges = Batch(
        namespace="edges", position=3, keys=[edge_key("n\x01", "o"), edge_key("o", "p"), edge_key("p", "q")],
        fields=[{"weight": 1.0}] * 3,
    )  # fmt: skip
    vectors = Batch(namespace="chunks", position=3, keys=["u", "v", "w"], fields=[{}, {}, {}])
    vectors.vectors = np.float32([[np.nan] * DIM, [1] * DIM, [2] * DIM])
    only_bad = Batch(namespace="text_chunks", position=1, keys=["t"], fields=[{"content": bad}])
    streams = {batch.namespace: batch for batch in (kv, nodes, edges, vectors, only_bad)}
    source, target = Streams(streams), store_of(tmp_path / "notes", DIM)
    expected, found = await examine_source(source, target, NAMES, rows, meter())
    left_out = LeftOut(found.left_out)
    assert left_out.streams == {"full_docs": 3, "text_chunks": 1, "nodes": 1, "edges": 2, "chunks": 1}
    await migrate(left_out.of(source), target, rows=rows)
    written = target.written(IDENTITY)
    report = await compare(left_out.of(source), target, written, expected, rows, meter())
    assert report.equal, report
    await publish(target)
    assert list(json.loads((tmp_path / "notes" / "kv_store_full_docs.json").read_text())) == ["c"]
    assert json.loads((tmp_path / "notes" / "kv_store_text_chunks.json").read_text()) == {}
    assert len(NanoVectorDB(DIM, storage_file=str(tmp_path / "notes" / "vdb_chunks.json"))) == 2
    graph = nx.read_graphml(tmp_path / "notes" / "graph_chunk_entity_relation.graphml")
    assert (sorted(graph.nodes), list(graph.edges)) == (["o", "p"], [("o", "p")])
