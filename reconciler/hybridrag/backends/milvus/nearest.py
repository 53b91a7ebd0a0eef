"""Nearest vectors as the server compares them.

It has no search without its index, but among few ids it looks at every vector; those that are asked for are given to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from hybridrag.model.data import Vectors
from hybridrag.model.findings import Nearest
from hybridrag.model.selection import Embedding

from .client import SLOW_TIMEOUT_S, Endpoint, connection, quoted
from .collections import collection_names

TOLERANCE = 1e-5


async def nearest(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    namespace: str,
    queries: Vectors,
    count: int,
    among: Sequence[Sequence[str]],
) -> Nearest | None:
    """See `Store.nearest`."""
    name = collection_names(workspace, embedding)[namespace]
    found: list[list[tuple[str, float]]] = []
    async with connection(endpoint, patience_s=10) as opened:
        if not await opened.call("has_collection", name):
            return None
        if not await opened.loaded(name):
            await opened.call("load_collection", name, timeout=SLOW_TIMEOUT_S)
        for vector, keys in zip(queries, among, strict=True):
            (hits,) = await opened.call(
                "search",
                name,
                data=[vector.tolist()],
                anns_field="vector",
                filter=f"id in [{', '.join(map(quoted, keys))}]",
                limit=count,
                output_fields=["id"],
                search_params={"metric_type": "COSINE"},
                consistency_level="Strong",
            )
            found.append([(str(hit["id"]), float(hit["distance"])) for hit in hits])
    return Nearest(found=found, tolerance=TOLERANCE)
