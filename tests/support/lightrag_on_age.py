"""LightRAG itself on Postgres with its graph in Apache AGE: no part of hybridrag has a hand in it.

    POSTGRES_…=… python -m tests.support.lightrag_on_age WORKSPACE

Inserts documents, then gives its graph some nodes and edges of hostile texts; answers with what LightRAG says it
holds afterwards: `{"nodes": {name: properties}, "edges": {"name\\x1fname": properties}}`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
from typing import Any

from . import make_database

HOSTILE = [
    'quo"te',
    "back\\slash",
    "\\u0041 is no A",
    "tab\tline\nend",
    "$$ $AGE1$",
    "{brace: 'x'}",
    "::numeric",
    "Ünïcödé 北京 😀",
    "",
]


async def write(workspace: str) -> dict[str, Any]:
    from lightrag import LightRAG

    with tempfile.TemporaryDirectory() as folder:
        rag = LightRAG(
            working_dir=folder,
            workspace=workspace,
            kv_storage="PGKVStorage",
            vector_storage="PGVectorStorage",
            graph_storage="PGGraphStorage",
            doc_status_storage="PGDocStatusStorage",
            **make_database.arguments(dim=96),
        )
        await rag.initialize_storages()
        try:
            for number in range(2):
                text = make_database.document(number, random.Random(number), 0)
                await rag.ainsert(text, file_paths=[f"{number}.txt"])
            graph = rag.chunk_entity_relation_graph
            names = [f"node {text}" for text in HOSTILE]
            for name, text in zip(names, HOSTILE, strict=True):
                node = {"entity_id": name, "entity_type": "Test", "description": text, "source_id": "chunk-1"}
                await graph.upsert_node(name, node)
            for one, other, text in zip(names, reversed(names), HOSTILE, strict=True):
                await graph.upsert_edge(one, other, {"weight": 1.5, "description": text, "keywords": text})
            nodes = {node["entity_id"]: node for node in await graph.get_all_nodes()}
            edges = {
                "\x1f".join(sorted((edge.pop("source"), edge.pop("target")))): edge
                for edge in await graph.get_all_edges()
            }
            for node in nodes.values():
                del node["id"]
            return {"nodes": nodes, "edges": edges}
        finally:
            await rag.finalize_storages()


if __name__ == "__main__":
    found = asyncio.run(write(sys.argv[1]))
    print(json.dumps(found))
