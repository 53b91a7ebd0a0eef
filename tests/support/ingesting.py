"""Documents for an ingester, and the proof that a store holds each of them once and whole."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

from hybridrag.adapters.ingest_names import file_path
from hybridrag.adapters.ingester import LightRagIngester
from hybridrag.model.data import EDGE_SEPARATOR, NAMESPACES
from hybridrag.model.ports import Store
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.watching import Document, Model, Models
from tests.conftest import clean_environment
from tests.support.make_database import document
from tests.support.model_server import ModelServer

SECRET = "sk-very-secret-key"
OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9"}
"""The tokenizer's table is not to be had: at once, and without a look at the network."""


def text(number: int) -> str:
    return document(number, random.Random(number), 0)


def doc(name: str, content: str) -> Document:
    return Document(name=name, text=content, digest=hashlib.sha256(content.encode()).hexdigest())


def models(server: ModelServer) -> Models:
    llm = Model(binding="openai", name="scripted", base_url=server.url, key=lambda: SECRET)
    return Models(
        llm=llm, embedding=Model(binding="openai", name=None, base_url=server.url, key=lambda: SECRET)
    )


@contextlib.asynccontextmanager
async def ingesting(
    selection: Selection,
    embedding: Embedding,
    server: ModelServer,
    folder: Path,
    inherit: Collection[int] = (),
) -> AsyncIterator[LightRagIngester]:
    """A started ingester; stopped at the end."""
    ingester = LightRagIngester(
        selection,
        embedding,
        models(server),
        environ=clean_environment(**OFFLINE),
        base_dir=folder,
        log=folder / "watch" / "notes.log",
        inherit=inherit,
    )
    await ingester.start()
    try:
        yield ingester
    finally:
        await ingester.stop()


async def contents(store: Store) -> dict[str, dict[str, dict[str, Any]]]:
    """Every record of a store, by namespace and key."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    async with store.reader().snapshot() as reader:
        for namespace in NAMESPACES:
            records = found.setdefault(namespace.name, {})
            async for batch in reader.read(namespace.name):
                records.update(zip(batch.keys, batch.fields, strict=True))
    return found


async def assert_holds(store: Store, expected: Mapping[str, str]) -> None:
    """Exactly these documents (text by name), each with all its chunks, vectors and entities, and nothing else."""
    found = await contents(store)
    rows = found["doc_status"]
    states = {row["file_path"]: row["status"] for row in rows.values()}
    assert states == {file_path(name): "processed" for name in expected}
    assert len(rows) == len(expected)
    texts = {row["file_path"]: found["full_docs"][key]["content"] for key, row in rows.items()}
    assert texts == {file_path(name): content.strip() for name, content in expected.items()}
    assert set(found["full_docs"]) == set(rows)
    chunks = {chunk for row in rows.values() for chunk in row["chunks_list"]}
    assert set(found["text_chunks"]) == chunks
    assert set(found["chunks"]) == chunks
    for row in rows.values():
        assert row["chunks_list"]
    assert set(found["full_entities"]) == set(rows)
    assert len(found["entities"]) == len(found["nodes"])
    assert len(found["relationships"]) == len(found["edges"])
    for kind in ("nodes", "edges"):
        for key, fields in found[kind].items():
            sources = set(fields["source_id"].split("<SEP>"))
            assert sources <= chunks, key.replace(EDGE_SEPARATOR, " ~ ")
    named = {name for entry in found["full_entities"].values() for name in entry["entity_names"]}
    assert named == set(found["nodes"])
