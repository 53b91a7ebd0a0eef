"""Files of a JSON database as LightRAG's libraries write them, and what our reader finds in them."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from hypothesis import HealthCheck, settings
from nano_vectordb.dbs import normalize

from hybridrag.backends.json.files import GRAPH_FILE
from hybridrag.backends.json.store import JsonReader
from hybridrag.model.data import Batch

IN_A_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Records = list[tuple[str, dict[str, Any], list[float] | None]]


def read(folder: Path, namespace: str, *, skip: int = 0, rows: int = 1000) -> list[Batch]:
    """Every batch of one stream, through the public reader."""

    async def collect() -> list[Batch]:
        return [batch async for batch in JsonReader(folder).read(namespace, skip=skip, rows=rows)]

    return asyncio.run(collect())


def records(batches: Iterable[Batch]) -> Records:
    return [
        (key, batch.fields[i], None if batch.vectors is None else batch.vectors[i].tolist())
        for batch in batches
        for i, key in enumerate(batch.keys)
    ]


def vector_file(
    path: Path,
    rows: list[dict[str, Any]],
    vectors: Any,
    *,
    after: dict[str, Any] | None = None,
    **layout: Any,
) -> Path:
    """A `vdb_*.json` as NanoVectorDB saves it: matrix normalised, `vector` in float16; `after` follows the matrix."""
    array = np.asarray(vectors, dtype=np.float32).reshape(len(rows), -1)
    with np.errstate(all="ignore"):
        matrix = normalize(array).astype(np.float32)
        half = array.astype(np.float16)
    data = [
        {"vector": base64.b64encode(zlib.compress(half[i].tobytes())).decode(), **row}
        for i, row in enumerate(rows)
    ]
    content = {
        "embedding_dim": array.shape[1],
        "data": data,
        "matrix": base64.b64encode(matrix.tobytes()).decode(),
        **(after or {}),
    }
    path.write_text(json.dumps(content, **{"ensure_ascii": False, **layout}), encoding="utf-8")
    return path


def graph_file(folder: Path) -> Path:
    """A GraphML file as NetworkXStorage writes it, with all attribute types and look-alikes of structure."""
    graph = nx.Graph()
    graph.add_node(
        "<node id='x'>", entity_id="a", description="]]> <edge &", created_at=2**40, score=1.5, ok=True
    )
    graph.add_node("Zoë", entity_id="", description="line\nbreak\ttab", created_at=-1, score=1e-300, ok=False)
    graph.add_node('lonely & "quoted"')
    graph.add_edge("Zoë", "<node id='x'>", weight=2.0, keywords="<node ", created_at=3, truncate="")
    graph.add_edge("Zoë", "Zoë", weight=0.1)
    path = folder / GRAPH_FILE
    nx.write_graphml(graph, path)
    return path
