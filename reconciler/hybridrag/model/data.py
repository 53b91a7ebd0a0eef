"""What a LightRAG database is made of: four slots, fourteen streams of records, batches of them.

Names are LightRAG's own (`lightrag/namespace.py`, 1.5.7); its one graph store is two streams here,
nodes and edges. Every room may use these nouns; none of them knows a product.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""Embeddings, shape (records, dimensions), C-contiguous float32, with their original norm."""


class Slot(str, enum.Enum):
    """The four storages LightRAG lets its user choose independently."""

    KV = "kv"
    DOC_STATUS = "doc_status"
    VECTOR = "vector"
    GRAPH = "graph"


ALL_SLOTS: frozenset[Slot] = frozenset(Slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """One stream of records: its name, its slot and its name for people."""

    name: str
    slot: Slot
    title: str


NAMESPACES: tuple[Namespace, ...] = (
    Namespace(name="full_docs", slot=Slot.KV, title="documents"),
    Namespace(name="text_chunks", slot=Slot.KV, title="chunks"),
    Namespace(name="llm_response_cache", slot=Slot.KV, title="LLM cache"),
    Namespace(name="full_entities", slot=Slot.KV, title="entities per document"),
    Namespace(name="full_relations", slot=Slot.KV, title="relations per document"),
    Namespace(name="entity_chunks", slot=Slot.KV, title="chunks per entity"),
    Namespace(name="relation_chunks", slot=Slot.KV, title="chunks per relation"),
    Namespace(name="other_stores", slot=Slot.KV, title="records of other stores"),
    Namespace(name="doc_status", slot=Slot.DOC_STATUS, title="document status"),
    Namespace(name="nodes", slot=Slot.GRAPH, title="graph nodes"),
    Namespace(name="edges", slot=Slot.GRAPH, title="graph edges"),
    Namespace(name="entities", slot=Slot.VECTOR, title="entity vectors"),
    Namespace(name="relationships", slot=Slot.VECTOR, title="relation vectors"),
    Namespace(name="chunks", slot=Slot.VECTOR, title="chunk vectors"),
)
"""All streams in copy order: chunks before their vectors, nodes before edges, vectors last."""

OTHER_STORES = "other_stores"
"""Records of stores that are not LightRAG's own, for example a plugin's: all of them are one stream.

A key is the store's name, `STORE_SEPARATOR`, and the record's own key. The record, of whatever type, is the field "value".
"""

BY_NAME: Mapping[str, Namespace] = {namespace.name: namespace for namespace in NAMESPACES}


def streams_of(slots: Collection[Slot]) -> tuple[str, ...]:
    """Names of the streams that some slots consist of, in copy order."""
    return tuple(namespace.name for namespace in NAMESPACES if namespace.slot in slots)


AFTER: Mapping[str, str] = {"edges": "nodes", "chunks": "text_chunks"}
"""Streams that need another one whole before them: an edge its nodes, a chunk vector the chunk that it repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Records of one stream by their positions in the source: those after `first`, up to `last` (None: to the end).

    `done` of the stream's records, counted from its beginning as `first` is, were copied.
    """

    namespace: str
    first: int = 0
    last: int | None = None
    done: int = 0


EDGE_SEPARATOR = "\x1f"
"""Joins the two ends of an edge into its key; LightRAG strips control characters from names."""


STORE_SEPARATOR = "\x1f"
"""Stands between the name of a store and a record's key; no store whose name has a control character is carried."""


def printable(key: str, length: int = 120) -> str:
    """A key as it may be shown: no control characters, lone surrogates escaped, not too long."""
    key = key.replace(EDGE_SEPARATOR, " ~ ").encode("utf-8", "backslashreplace").decode()
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in key)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a source cannot give one of its records as a record, in words, and what stands there instead."""

    reason: str
    record: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A record of a source that a target cannot hold, and why. `position` counts the stream's records from 1 on."""

    namespace: str
    position: int
    key: str
    reason: str
    record: Any
    vector: Vectors | None = None


@dataclass(slots=True, kw_only=True)
class Batch:
    """Some consecutive records of one namespace.

    `keys[i]`, `fields[i]` and, for vector namespaces, `vectors[i]` are one record. `position` counts the
    records of the namespace up to and including this batch; it is what a checkpoint stores. `size` is in
    bytes of the source. `faults[i]` says that record i is none: it has a key and a place, but nothing else.
    """

    namespace: str
    position: int
    keys: list[str] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    vectors: Vectors | None = None
    size: int = 0
    faults: dict[int, Fault] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, indexes: Sequence[int]) -> Batch:
        """The same batch with some of its records."""
        if len(indexes) == len(self):
            return self
        return Batch(
            namespace=self.namespace,
            position=self.position,
            keys=[self.keys[index] for index in indexes],
            fields=[self.fields[index] for index in indexes],
            vectors=None if self.vectors is None else self.vectors[list(indexes)],
            size=self.size * len(indexes) // max(1, len(self)),
            faults={new: self.faults[old] for new, old in enumerate(indexes) if old in self.faults},
        )

    def up_to(self, last: int | None) -> Batch:
        """The same batch without the records behind position `last`; of a reader that leaves none out."""
        if last is None or self.position <= last:
            return self
        rest = self.only(range(max(0, len(self) - (self.position - last))))
        rest.position = last
        return rest

    def drop_first(self, count: int) -> Batch:
        """The same batch without its first `count` records (they were committed before)."""
        return Batch(
            namespace=self.namespace,
            position=self.position,
            keys=self.keys[count:],
            fields=self.fields[count:],
            vectors=None if self.vectors is None else self.vectors[count:],
            size=self.size,
            faults={index - count: fault for index, fault in self.faults.items() if index >= count},
        )
