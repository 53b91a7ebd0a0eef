"""The variables in which a lightrag-server is told its storages, and the classes it takes where they are absent."""

from __future__ import annotations

from .selection import Selection

STORAGES = {
    "LIGHTRAG_KV_STORAGE": "JsonKVStorage",
    "LIGHTRAG_DOC_STATUS_STORAGE": "JsonDocStatusStorage",
    "LIGHTRAG_GRAPH_STORAGE": "NetworkXStorage",
    "LIGHTRAG_VECTOR_STORAGE": "NanoVectorDBStorage",
}


def storages_of(selection: Selection) -> dict[str, str]:
    """The selection's classes by the variables that name them."""
    classes = (selection.kv, selection.doc_status, selection.graph, selection.vector)
    return {
        name: chosen or default for (name, default), chosen in zip(STORAGES.items(), classes, strict=True)
    }
