"""The peer: the same records through LightRAG's own storage classes, with ready-made embeddings.

Run as a child by `copy_speed.py`: JSON task on stdin, JSON answer on stdout. Reading the source is not timed, and
no embedding is computed: the embedding function only looks vectors up.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hybridrag.backends.json.store import JsonReader
from hybridrag.model.data import EDGE_SEPARATOR, NAMESPACES

ROWS = 1000


async def load(rag: Any, reader: JsonReader, vectors: dict[str, Any]) -> dict[str, float]:
    """Upsert every namespace; seconds by slot, the flush of the vector storages included."""
    stores = {
        "full_docs": rag.full_docs,
        "text_chunks": rag.text_chunks,
        "llm_response_cache": rag.llm_response_cache,
        "full_entities": rag.full_entities,
        "full_relations": rag.full_relations,
        "entity_chunks": rag.entity_chunks,
        "relation_chunks": rag.relation_chunks,
        "doc_status": rag.doc_status,
        "entities": rag.entities_vdb,
        "relationships": rag.relationships_vdb,
        "chunks": rag.chunks_vdb,
    }
    seconds: dict[str, float] = {}
    order: dict[str, tuple[int, int]] = {}
    for namespace in NAMESPACES:
        async for batch in reader.read(namespace.name, rows=ROWS):
            records = dict(zip(batch.keys, batch.fields, strict=True))
            if namespace.name == "text_chunks":
                order.update((key, (f["tokens"], f["chunk_order_index"])) for key, f in records.items())
            if batch.vectors is not None:
                vectors.clear()
                for index, fields in enumerate(batch.fields):
                    vectors[fields["content"]] = batch.vectors[index]
                if namespace.name == "chunks":
                    for key, fields in records.items():
                        fields["tokens"], fields["chunk_order_index"] = order[key]
            started = time.perf_counter()
            if namespace.name == "nodes":
                await rag.chunk_entity_relation_graph.upsert_nodes_batch(list(records.items()))
            elif namespace.name == "edges":
                edges = [(*key.split(EDGE_SEPARATOR), fields) for key, fields in records.items()]
                await rag.chunk_entity_relation_graph.upsert_edges_batch(edges)
            else:
                await stores[namespace.name].upsert(records)
                await stores[namespace.name].index_done_callback()
            seconds[namespace.slot.value] = (
                seconds.get(namespace.slot.value, 0.0) + time.perf_counter() - started
            )
    return seconds


async def main() -> dict[str, Any]:
    task = json.load(sys.stdin)
    os.environ.update(task["variables"])
    from lightrag import LightRAG
    from lightrag.utils import EmbeddingFunc

    from hybridrag.adapters.lightrag_instance import word_tokenizer

    vectors: dict[str, Any] = {}

    async def look_up(texts: list[str], **_: Any) -> Any:
        return np.stack([vectors[text] for text in texts])

    rag = LightRAG(
        working_dir=task["folder"],
        workspace=task["workspace"],
        kv_storage="PGKVStorage",
        vector_storage="PGVectorStorage",
        graph_storage="PGTableGraphStorage",
        doc_status_storage="PGDocStatusStorage",
        embedding_func=EmbeddingFunc(
            embedding_dim=task["dim"], max_token_size=8192, func=look_up, model_name=task["model"]
        ),
        llm_model_func=look_up,
        tokenizer=word_tokenizer(),
    )
    await rag.initialize_storages()
    started = time.perf_counter()
    seconds = await load(rag, JsonReader(Path(task["data"])), vectors)
    total = time.perf_counter() - started
    await rag.finalize_storages()
    return {"seconds": seconds, "total": total, "upserts": sum(seconds.values())}


if __name__ == "__main__":
    answer_to = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answer_to, "w") as out:
        json.dump(asyncio.run(main()), out)
