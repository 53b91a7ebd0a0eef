"""Vectors in a real Milvus: what goes in comes out, nobody else's is touched; looking leaves no trace; LightRAG works on it."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hybridrag.backends.json.backend import JsonBackend
from hybridrag.backends.milvus.collections import VECTORS, collection_name
from hybridrag.backends.milvus.store import MilvusStore
from hybridrag.errors import PlanRefused
from hybridrag.model.findings import Examination
from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE, OLD_DATABASE, ROOT, clean_environment
from tests.integration.test_lightrag_answers import MODES, QUESTIONS, TOP_K, same
from tests.support.milvus import MilvusServer
from tests.support.milvus_stores import (  # noqa: F401
    EMBEDDING,
    FIRST,
    flat,
    move,
    records,
    source,
    store,
    switched,
    verified,
)


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(EXAMPLE / "archive", id="1.5"),
        pytest.param(OLD_DATABASE, id="1.4", marks=pytest.mark.slow),
    ],
)
async def test_a_database_arrives_whole_and_leaves_again_as_it_was(folder: Path, store: MilvusStore) -> None:
    """JSON to Milvus, compared record by record; then read with other page sizes, and from the middle."""
    dim = int(json.loads((folder / "vdb_chunks.json").read_text("utf-8"))["embedding_dim"])
    assert dim == DIM
    reader = source(folder).reader()
    written = await move(reader, store)
    facts, details = await store.observe()
    assert facts["state"] == "copied"
    assert sum(int(facts[f"records/{name}"] or 0) for name in VECTORS) == written > 100
    assert details["checkpoint_records"] == written
    report = await verified(reader, store)
    assert report.equal, report.listed
    assert report.records == written

    wanted: list[tuple[str, bytes, bytes]] = []
    async for batch in reader.read("entities", rows=1000):
        form = store.examine(batch, Examination())
        wanted += flat(form)
    for rows, skip in ((3, 0), (1000, 7), (7, len(wanted) - 1), (7, len(wanted)), (7, len(wanted) + 5)):
        found = [batch async for batch in store.reader().read("entities", skip=skip, rows=rows)]
        assert [item for batch in found for item in flat(batch)] == sorted(wanted)[skip:]
        if found:
            assert found[-1].position == len(wanted)


async def test_foreign_data_is_refused_and_left_alone(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """Rows in our collections without our mark."""
    reader = source().reader()
    await move(reader, store)
    client = milvus.client(vector_database)
    client.delete("hybridrag_ledger", ids=["mark:notes"])
    before = records(client)
    with pytest.raises(
        PlanRefused, match="notes_entities_hash_emb_96d already holds records that are not ours"
    ):
        await move(reader, store)
    assert records(client) == before


async def test_vectors_of_another_model_are_seen_and_refused(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """LightRAG would silently take over a collection without suffix: nothing is created while there is one."""
    old = milvus.backend(vector_database).store("unused", "notes", Embedding(model=None, dim=DIM))
    await move(source().reader(), old)
    milvus.client(vector_database).delete("hybridrag_ledger", ids=["mark:notes"])
    facts, _ = await store.observe()
    assert facts["foreign_vectors"] == "notes_chunks, notes_entities, notes_relationships"
    with pytest.raises(
        PlanRefused, match="notes_chunks, notes_entities, notes_relationships already holds vectors"
    ):
        await move(source().reader(), store)
    assert (await store.observe())[0]["schema"] is False


@pytest.mark.long
async def test_a_newer_state_of_the_source_replaces_ours_and_no_neighbour(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """Only the workspace's own collections are dropped; another workspace is untouched, record by record."""
    neighbour = milvus.backend(vector_database).store("unused", "notes_2", EMBEDDING)
    reader = source().reader()
    await move(reader, neighbour)
    await switched(neighbour)
    before = await neighbour.reader().fingerprint()
    await move(reader, store, finish=False)
    assert (await store.observe())[0]["foreign_vectors"] is None, (
        "a neighbour's collections are no foreign vectors"
    )
    assert await move(reader, store, "db1-b") > 100
    assert (await store.observe())[0]["migration"] == "db1-b"
    assert (await verified(reader, store)).equal
    assert await neighbour.reader().fingerprint() == before
    assert (await verified(reader, neighbour)).equal


# --- looking ------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_fingerprint_changes_with_every_kind_of_write(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """A row replaced, deleted, added; and it stays the same when nothing happens. Observing writes nothing."""
    await move(source().reader(), store)
    client = milvus.client(vector_database)
    name = collection_name("entities", "notes", EMBEDDING)
    seen = [await store.reader().fingerprint()]
    assert await store.reader().fingerprint() == seen[0]
    assert (await store.observe())[0]["fingerprint"] == seen[0]
    row = dict(client.query(name, filter="", limit=1, output_fields=["*"])[0])
    for change in (
        lambda: client.upsert(name, [{**row, "created_at": row["created_at"] + 1}]),
        lambda: client.upsert(name, [{**row, "content": "changed"}]),
        lambda: client.delete(name, ids=[row["id"]]),
        lambda: client.insert(name, [{**row, "id": "ent-new"}]),
    ):
        change()
        seen.append(await store.reader().fingerprint())
    assert len(set(seen)) == len(seen)
    assert await store.reader().unfinished() == []
    client.create_collection(f"{name}_temp", dimension=4)
    assert await store.reader().unfinished() == [f"{name}_temp"]


async def test_an_empty_place_is_observed_without_a_trace(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """Nothing is created by looking; a missing database, a missing server and too many dimensions are told in words."""
    facts, _ = await store.observe()
    assert facts["exists"] is False
    assert facts["missing"] == 'backend "vectors" has no collection notes_chunks_hash_emb_96d'
    assert facts["schema"] is False
    assert facts["migration"] is None
    assert milvus.client(vector_database).list_collections() == []

    backend = milvus.backend(vector_database)
    told, details = await backend.observe()
    assert told["reachable"] is True
    assert details["latency_ms"]
    assert backend.problems(told, EMBEDDING) == []
    too_many = backend.problems(told, Embedding(model="m", dim=40_000))
    assert "2 to 32,768 dimensions, the database has 40,000" in too_many[0].what
    told, _ = await milvus.backend("nowhere").observe()
    assert 'has no database "nowhere"' in str(told["problem"])
    with pytest.raises(PlanRefused, match=r'Milvus cannot hold workspace "v1\.0"'):
        await backend.store("unused", "v1.0", EMBEDDING).observe()


# --- LightRAG on it -----------------------------------------------------------------------------------


def ask(selection: Any, **task: Any) -> Any:
    """LightRAG in a process of its own on the slots of `selection`."""
    told = {**{k: v for k, v in asdict(selection).items() if k != "secrets"}, "secrets": {}}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.ask_beside"],
        input=json.dumps({"selection": told, "dim": DIM, "modes": MODES, "top_k": TOP_K, **task}),
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.slow
async def test_lightrag_answers_as_on_files_and_goes_on_writing(tmp_path: Path, store: MilvusStore) -> None:
    """Vectors in Milvus, the rest in files: the same answers as all in files, also after an insert and a deletion."""
    await move(source().reader(), store)
    sides = []
    for name in ("files", "mixed"):
        folder = tmp_path / name
        shutil.copytree(EXAMPLE / "archive", folder)
        sides.append(JsonBackend("files").store(str(folder), "", EMBEDDING).selection())
    sides[1] = store.selection().beside(sides[1])
    document = next(iter(json.loads((EXAMPLE / "archive" / "kv_store_full_docs.json").read_text("utf-8"))))
    task = {
        "questions": QUESTIONS[:6],
        "insert": "Ada Lovelace leads optics at Alpha Lab.",
        "delete": document,
    }
    one, other = await asyncio.gather(*(asyncio.to_thread(ask, side, **task) for side in sides))
    assert other["store"] == "MilvusVectorDBStorage"
    assert one["deletion"] == other["deletion"] == "success"
    assert same(one["before"], other["before"]) == []
    assert same(one["after"], other["after"], ignore=["created_at"]) == []
    assert one["after"] != one["before"]


@pytest.mark.slow
async def test_other_vectors_give_way_when_they_must_and_no_neighbour(
    milvus: MilvusServer, vector_database: str, store: MilvusStore
) -> None:
    """Ours or of another model: the workspace's collections go, a neighbour's stay, and only under the mark that was seen."""
    client = milvus.client(vector_database)
    other = milvus.backend(vector_database).store("unused", "other", EMBEDDING)
    newer = milvus.backend(vector_database).store("unused", "notes", Embedding(model="newer", dim=96))
    await move(source().reader(), other)
    await move(source().reader(), store)
    with pytest.raises(PlanRefused, match="taken over by another migration meanwhile"):
        await newer.make_way(FIRST)  # it is not finished: whoever makes it may go on
    await switched(store)
    before = set(client.list_collections())
    with pytest.raises(PlanRefused, match="taken over by another migration meanwhile"):
        await newer.make_way("somebody-else")
    assert set(client.list_collections()) == before
    facts, _ = await newer.observe()
    assert facts["foreign_vectors"]
    await newer.make_way(str(facts["migration"]))
    await newer.make_way(None)  # once more, as after a kill
    assert set(client.list_collections()) == {name for name in before if not name.startswith("notes_")}
    assert (await verified(source().reader(), other)).equal
    facts, _ = await newer.observe()
    assert (facts["foreign_vectors"], facts["migration"]) == (None, None)
