"""Stores of vectors in the run's Milvus, without a spec: what a test of the store itself needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridrag.backends.json.backend import JsonBackend
from hybridrag.backends.milvus.collections import VECTORS, collection_name
from hybridrag.backends.milvus.store import MilvusStore
from hybridrag.migrate.copying import copy
from hybridrag.migrate.digest import canonical_bytes
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare
from hybridrag.model.data import Batch, Slot
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Reader
from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE
from tests.support.milvus import MilvusServer

EMBEDDING = Embedding(model="hash-emb", dim=DIM)
FIRST = "db1-a"
"""Name of a migration: whose, and for which state of the source."""


def meter() -> Meter:
    return Meter(lambda event: None, "migrate.test", "copying", 1)


def source(folder: Path = EXAMPLE / "archive", embedding: Embedding = EMBEDDING) -> Any:
    return JsonBackend("files").store(str(folder), "", embedding, frozenset({Slot.VECTOR}))


async def move(
    reader: Reader, store: MilvusStore, migration: str = FIRST, rows: int = 50, *, finish: bool = True
) -> int:
    """What an apply does: copy from the last checkpoint on; returns the records written now."""
    async with store.open_writer(migration, "fingerprint") as writer:
        done = await writer.prepare()
        written = await copy(reader, writer, VECTORS, done, rows, meter())
        if finish:
            await writer.finish(lambda text: None)
    return written


async def switched(store: MilvusStore, migration: str = FIRST) -> None:
    """From copied on."""
    for state in (MarkState.VERIFIED, MarkState.SWITCHED):
        await store.mark(migration, state)


async def verified(reader: Reader, store: MilvusStore) -> Report:
    tables, examination = await examine_source(reader, store, VECTORS, 100, meter())
    assert not examination.refused
    assert not examination.lost
    return await compare(reader, store, store.reader(), tables, 100, meter())


def records(client: Any, workspace: str = "notes") -> int:
    """As a stranger counts: LightRAG's collections of one workspace."""
    total = 0
    for namespace in VECTORS:
        name = collection_name(namespace, workspace, EMBEDDING)
        rows = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
        total += rows[0]["count(*)"]
    return total


@pytest.fixture
def store(milvus: MilvusServer, vector_database: str) -> MilvusStore:
    """An empty workspace in a fresh database."""
    return milvus.backend(vector_database).store("unused", "notes", EMBEDDING)


def flat(batch: Batch) -> list[tuple[str, bytes, bytes]]:
    assert batch.vectors is not None
    return [
        (key, canonical_bytes(fields), vector.tobytes())
        for key, fields, vector in zip(batch.keys, batch.fields, batch.vectors, strict=True)
    ]
