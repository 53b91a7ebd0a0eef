"""A finished copy in Milvus is brought up to a later state of the files, and given back only to its owner."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hybridrag.backends.milvus.store import MilvusStore
from hybridrag.migrate.catching_up import apart, catch_up
from hybridrag.migrate.changing import carry, look_at
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.model.data import streams_of
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Store
from tests.conftest import EXAMPLE
from tests.support.milvus import MilvusServer
from tests.support.milvus_stores import EMBEDDING, move, source
from tests.support.stores import meter


@pytest.fixture
def vectors(milvus: MilvusServer, vector_database: str) -> MilvusStore:
    return milvus.backend(vector_database).store("unused", "notes", EMBEDDING)


async def _tables(source: Store, target: Store) -> dict[str, NamespaceDigest]:
    names = streams_of(target.slots)
    tables, _ = await examine_source(source.reader(), target, names, 50, meter())
    return dict(tables)


async def test_milvus_is_brought_up_to_date(vectors: MilvusStore, tmp_path: Path) -> None:
    """By what differs, then by a whole pass that begins with a copy of an old state; all records equal each time."""
    shutil.copytree(EXAMPLE / "archive", tmp_path / "notes")
    files = source(tmp_path / "notes")
    await move(files.reader(), vectors)
    held = await _tables(files, vectors)
    mending, streams = vectors.mending(), streams_of(vectors.slots)
    first = await _tables(files, vectors)
    async with files.reader().snapshot() as moment:
        _rewrite(tmp_path / "notes" / "vdb_entities.json")
        async with moment.until(files.reader()) as changes:
            assert changes is not None
            found = await look_at(changes, vectors, mending, streams, 50, lossy=True)
            async with mending.open("db1-a") as patcher:
                delta = await carry(found, changes, vectors, mending, patcher, first, 50, meter())
    assert (delta.put, delta.removed) == (2, 1)
    assert apart(await _tables(files, vectors), first) == []
    facts, _ = await vectors.observe()
    assert facts["state"] == "copied", "what was changed is unverified"
    await vectors.mark("db1-a", MarkState.VERIFIED, "another state")
    facts, _ = await vectors.observe()
    assert (facts["state"], facts["source_fingerprint"]) == ("verified", "another state")
    # Back to the first state, told by the tables alone.
    shutil.rmtree(tmp_path / "notes")
    shutil.copytree(EXAMPLE / "archive", tmp_path / "notes")
    async with mending.open("db1-a") as patcher:
        delta = await catch_up(files.reader(), vectors, mending, patcher, held, first, 50, meter())
    assert (delta.put, delta.removed) == (2, 1)
    found_keys = [key async for keys in mending.keys("entities") for key in keys]
    assert len(found_keys) == len(set(found_keys)) == held["entities"].records


def _rewrite(path: Path) -> None:
    """As LightRAG does: the first row gone, one changed, one added."""
    import base64

    import numpy as np

    value = json.loads(path.read_text("utf-8"))
    matrix = np.frombuffer(base64.b64decode(value["matrix"]), dtype="<f4").reshape(-1, value["embedding_dim"])
    rows = value["data"][1:]
    rows[3]["content"] += " changed"
    rows.append({**rows[0], "__id__": "ent-new"})
    whole = np.concatenate([matrix[1:], matrix[1:2]])
    value |= {"data": rows, "matrix": base64.b64encode(whole.tobytes()).decode()}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    new.replace(path)
