"""Vectors in a real Milvus: what goes in comes out as declared, once, whatever is killed; LightRAG works on it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.backends.json.backend import JsonBackend
from hybridrag.backends.milvus import lock
from hybridrag.backends.milvus.collections import KEY_BYTES, LIMITS, VECTORS, collection_name, foreign
from hybridrag.backends.milvus.store import MilvusStore
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.migrate.copying import copy
from hybridrag.migrate.digest import canonical_bytes
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare
from hybridrag.model.data import Batch, Slot
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Reader
from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE, OLD_DATABASE, ROOT, clean_environment
from tests.integration.test_lightrag_answers import MODES, QUESTIONS, TOP_K, same
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


@pytest.mark.parametrize("folder", [EXAMPLE / "archive", OLD_DATABASE], ids=["1.5", "1.4"])
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


def flat(batch: Batch) -> list[tuple[str, bytes, bytes]]:
    assert batch.vectors is not None
    return [
        (key, canonical_bytes(fields), vector.tobytes())
        for key, fields, vector in zip(batch.keys, batch.fields, batch.vectors, strict=True)
    ]


# --- whatever a record holds --------------------------------------------------------------------------

_valid = st.characters(exclude_categories=("Cs",))
_tricky = st.sampled_from(
    ["", "\0", 'a"b', "a\\", "'; drop", "%_like", "𝕏😀\u202e", "\U0010ffff", "e\u0301", "<SEP>"]
)
_text = st.one_of(_tricky, st.text(_valid, max_size=40))
_keys = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=16).filter(
        lambda key: len(key.encode()) <= KEY_BYTES
    ),
    st.sampled_from(["x" * KEY_BYTES, 'a"', "a\\", 'a\\"', "'", "a%", "\U0010ffff", "ent-0", "é" * 32]),
)
_times = st.one_of(st.none(), st.integers(-(2**61), 2**61), st.floats(0, 2e9))
_numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALL = Embedding(model="hash-emb", dim=4)


def _fields(namespace: str) -> st.SearchStrategy[dict[str, Any]]:
    known = {name: st.one_of(st.none(), _text) for name in LIMITS[namespace]}
    full = {
        name: st.just("é" * (limit // 2) + "x" * (limit % 2)) for name, limit in LIMITS[namespace].items()
    }
    return st.one_of(
        st.fixed_dictionaries({}, optional={**known, "created_at": _times}),
        st.fixed_dictionaries({}, optional={**full, "created_at": _times}),
    )


@pytest.fixture(scope="module")
def small(milvus: MilvusServer) -> Any:
    """LightRAG's schema at four dimensions, made once."""
    milvus.client("default").create_database("hostile")
    store = milvus.backend("hostile").store("unused", "trip", SMALL)

    async def prepare() -> None:
        async with store.open_writer(FIRST, "fingerprint") as writer:
            await writer.prepare()

    asyncio.run(prepare())
    return store, milvus.client("hostile")


@pytest.mark.parametrize("namespace", VECTORS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                                          HealthCheck.function_scoped_fixture]
)  # fmt: skip
@given(data=st.data())
def test_hostile_records_come_back_as_examined(namespace: str, small: Any, data: st.DataObject) -> None:
    """Unicode of all planes, quotes, NUL, empty and longest texts, odd floats: to the bit what `examine` said."""
    store, client = small
    keys = data.draw(st.lists(_keys, min_size=1, max_size=6, unique=True))
    batch = Batch(namespace=namespace, position=len(keys), keys=keys)
    batch.fields = [data.draw(_fields(namespace)) for _ in keys]
    vectors = data.draw(
        st.lists(st.lists(_numbers, min_size=4, max_size=4), min_size=len(keys), max_size=len(keys))
    )
    batch.vectors = np.array(vectors, dtype=np.float32)
    examination = Examination()
    wanted = store.examine(batch, examination)
    assert not examination.refused

    async def trip() -> list[tuple[str, bytes, bytes]]:
        async with store.open_writer(FIRST, "fingerprint") as writer:
            await writer.prepare()
            await writer.write(writer.encode(batch))
        return [item async for found in store.reader().read(namespace, rows=2) for item in flat(found)]

    try:
        assert asyncio.run(trip()) == sorted(flat(wanted))
    finally:
        client.delete(collection_name(namespace, "trip", SMALL), filter='id != ""')


def test_what_milvus_cannot_hold_is_named_and_never_cut(small: Any) -> None:
    """One byte too many, a key of nothing, lone surrogates, NaN: refused by name; fields without a place are counted."""
    store, _ = small
    rows: list[tuple[str, dict[str, Any], float]] = [
        ("ok", {"content": "x" * 65535, "tokens": 3, "nothing": None}, 1.0),
        ("content", {"content": "é" * 32768}, 1.0),
        ("name", {"entity_name": "n" * 513}, 1.0),
        ("type", {"file_path": 7}, 1.0),
        ("surrogate", {"content": "\ud800"}, 1.0),
        ("time", {"created_at": "yesterday"}, 1.0),
        ("é" * 33, {}, 1.0),
        ("", {}, 1.0),
        ("line\nbreak", {}, 1.0),
        ("nan", {}, float("nan")),
    ]
    batch = Batch(namespace="entities", position=len(rows), keys=[row[0] for row in rows])
    batch.fields = [row[1] for row in rows]
    batch.vectors = np.array([[row[2]] * 4 for row in rows], dtype=np.float32)
    examination = Examination()
    kept = store.examine(batch, examination)
    assert kept.keys == ["ok"]
    assert len(kept.fields[0]["content"]) == 65535
    assert examination.lost == {("entities", "tokens"): 1}
    assert [(key, reason) for _, key, reason in examination.refused] == [
        ("content", "content has 65,536 bytes, Milvus takes 65,535"),
        ("name", "entity_name has 513 bytes, Milvus takes 512"),
        ("type", "file_path is not text"),
        ("surrogate", "content contains a lone surrogate"),
        ("time", "created_at is not a time in seconds"),
        ("é" * 33, "its key has 66 bytes, Milvus takes 64"),
        ("", "its key is empty, and LightRAG's own iteration leaves such a record out"),
        ("line\\nbreak", "its key contains a control character"),
        ("nan", "its vector contains NaN or Infinity"),
    ]


# --- kills, other people's data ----------------------------------------------------------------------

_WRITE = """
import asyncio, json, sys
from pathlib import Path
from hybridrag.migrate.copying import copy
from tests.contract.test_milvus import EMBEDDING, VECTORS, FIRST, meter, source
from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.milvus.backend import MilvusBackend
from hybridrag.backends.milvus.spec import MilvusSpec

async def main():
    spec = MilvusSpec.model_validate({"type": "milvus", "uri": sys.argv[1], "database": sys.argv[2]})
    backend = MilvusBackend("vectors", spec, secrets=Secrets({}, Path()), schema=LightRagSchema())
    store = backend.store("unused", "notes", EMBEDDING)
    async with store.open_writer(FIRST, "fingerprint") as writer:
        await copy(source().reader(), writer, VECTORS, await writer.prepare(), 2, meter())

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_killed_copy_goes_on_and_nothing_is_there_twice(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """SIGKILL in the middle of the writing; the next run takes the dead one's lock and resumes, with other batches."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITE, milvus.uri, vector_database, cwd=ROOT, env=clean_environment()
    )
    reached = 0
    while reached < 40:
        assert process.returncode is None, "it ended before it was killed"
        _, details = await store.observe()
        reached = int(details.get("checkpoint_records") or 0)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    before = records(milvus.client(vector_database))
    reader = source().reader()
    written = await move(reader, store, rows=31)
    assert written > 0
    total = records(milvus.client(vector_database))
    assert before < total <= written + before
    report = await verified(reader, store)
    assert report.equal, report.listed
    assert report.records == total
    assert await move(reader, store) == 0, "a second run has nothing to do"


async def test_a_batch_without_its_checkpoint_is_written_again_and_once(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The moment between the records and their checkpoint: the worst one for a store without transactions."""
    reader = source().reader()
    first = await anext(aiter(reader.read("entities", rows=40)))
    async with store.open_writer(FIRST, "fingerprint") as writer:
        await writer.prepare()
        with monkeypatch.context() as patch:

            async def cut(mark: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(writer._ledger, "put", cut)
            with pytest.raises(KeyboardInterrupt):
                await writer.write(writer.encode(first))
    assert records(milvus.client(vector_database)) == len(first)
    assert await move(reader, store, rows=33) > 100
    report = await verified(reader, store)
    assert report.equal, report.listed
    assert records(milvus.client(vector_database)) == report.records


@pytest.mark.slow
async def test_a_server_that_dies_meanwhile_is_an_error_in_words_and_loses_nothing(
    tmp_path: Path,
    milvus: MilvusServer,
) -> None:
    """Killed between two batches and started again: the copy goes on from its checkpoint."""
    own = MilvusServer(tmp_path)
    own.start()
    try:
        store = own.backend("default").store("unused", "notes", EMBEDDING)
        reader = source().reader()
        async with store.open_writer(FIRST, "fingerprint") as writer:
            done = await writer.prepare()
            batch = await anext(aiter(reader.read("entities", rows=10)))
            await writer.write(writer.encode(batch))
            own.kill()
            with pytest.raises(BackendUnavailable, match=r"cannot be reached|did not answer"):
                await asyncio.wait_for(copy(reader, writer, VECTORS, done, 50, meter()), 120)
        facts, _ = await own.backend("default").observe()
        assert facts["reachable"] is False
        assert "cannot be reached" in str(facts["problem"])
        own.start()
        await move(reader, store)
        report = await verified(reader, store)
        assert report.equal, report.listed
    finally:
        own.kill()


async def test_foreign_data_is_refused_and_left_alone(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """Rows in our collections without our mark; a copy of another database; one that is in use."""
    reader = source().reader()
    await move(reader, store)
    with pytest.raises(PlanRefused, match="unfinished copy of another database"):
        await move(reader, store, "db2-a")
    await store.mark(FIRST, "switched")
    with pytest.raises(PlanRefused, match="in use by an earlier migration"):
        await move(reader, store, "db1-b")
    with pytest.raises(PlanRefused, match="taken over by another migration"):
        await store.mark("db1-b", "verified")
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


@pytest.mark.slow
async def test_a_newer_state_of_the_source_replaces_ours_and_no_neighbour(
    milvus: MilvusServer,
    store: MilvusStore,
    vector_database: str,
) -> None:
    """Only the workspace's own collections are dropped; another workspace is untouched, record by record."""
    neighbour = milvus.backend(vector_database).store("unused", "notes_2", EMBEDDING)
    reader = source().reader()
    await move(reader, neighbour)
    await neighbour.mark(FIRST, "switched")
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


async def test_two_writers_never_hold_one_workspace(
    store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits and is told; another workspace is free; after a while without sign of life it is taken over."""
    monkeypatch.setattr(lock, "PATIENCE_S", 0.5)
    async with store.open_writer(FIRST, "fingerprint"):
        with pytest.raises(BackendUnavailable, match="is being written by another session"):
            async with store.open_writer(FIRST, "fingerprint"):
                pass
    async with store.open_writer(FIRST, "fingerprint") as writer:
        writer._lock._renewed -= lock.TTL_S
        with pytest.raises(BackendUnavailable, match="could not keep its lock"):
            writer._lock.check()


async def test_many_at_once_and_only_one_gets_the_lock(
    store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims that meet at the same moment: never two holders."""
    monkeypatch.setattr(lock, "PATIENCE_S", 3.0)
    async with store.open_writer(FIRST, "fingerprint"):
        pass  # the ledger is there
    holders = most = got = 0

    async def one() -> None:
        nonlocal holders, most, got
        try:
            async with store.open_writer(FIRST, "fingerprint"):
                holders += 1
                got += 1
                most = max(most, holders)
                await asyncio.sleep(0.05)
                holders -= 1
        except BackendUnavailable:
            pass

    await asyncio.gather(*(one() for _ in range(5)))
    assert most == 1
    assert got >= 1


# --- looking ------------------------------------------------------------------------------------------


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


def test_a_missing_package_is_an_error_in_words_with_the_command() -> None:
    """Also where a file's path in MILVUS_URI would break the package's import."""
    code = "import sys; sys.modules['pymilvus'] = None\n" + _OBSERVE
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the Python package pymilvus is not installed" in done.stdout
    assert "pip install 'hybridrag-reconciler[milvus]'" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", _OBSERVE],
        cwd=ROOT,
        env=clean_environment(MILVUS_URI="./milvus.db"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be reached" in done.stdout
    assert done.stderr == ""


_OBSERVE = """
import asyncio
from hybridrag.backends.milvus.backend import MilvusBackend
from hybridrag.backends.milvus.spec import MilvusSpec
spec = MilvusSpec.model_validate({"type": "milvus", "uri": "http://127.0.0.1:9"})
print(asyncio.run(MilvusBackend("vectors", spec, secrets=None, schema=None).observe()))
"""


@pytest.mark.parametrize(
    ("name", "is_foreign"),
    [
        ("notes_entities", True),
        ("notes_entities_old", True),
        ("notes_chunks_other_model_8d", True),
        ("notes_2_chunks_other_model_8d", False),
        ("notes_entities_x_chunks_m_8d", False),
        ("other_notes_entities", False),
        ("notes_text_chunks", False),
        ("notes_entities_hash_emb_96d", False),
        ("hybridrag_ledger", False),
    ],
)
def test_collections_of_a_workspace_are_told_from_a_neighbours(name: str, is_foreign: bool) -> None:
    """By LightRAG's rule for names, of which a workspace's own name may be a part."""
    assert bool(foreign([name], "notes", ["notes_entities_hash_emb_96d"])) is is_foreign


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"uri": "http://root:secret@host:19530"}, "without a password in it"),
        ({"uri": "./milvus.db"}, "must be the address of a server"),
        ({"user": "root"}, "give user and password together"),
        (
            {"user": "root", "password": {"env": "P"}, "token": {"env": "T"}},
            "give either token, or user and password",
        ),
        ({"index": {"type": "ivf_flat", "nlist": 8, "nprobe": 9}}, "nprobe must not be above nlist"),
        ({"index": {"type": "ivf_pq"}}, "known: autoindex, diskann, hnsw, hnsw_sq"),
        ({"database": "a b"}, 'may hold letters, digits and "_"'),
    ],
)
def test_a_wrong_entry_is_refused_in_words(tmp_path: Path, declared: dict[str, Any], words: str) -> None:
    """By the command, with the documented code; no password is shown."""
    spec = {
        "version": 1,
        "environment": "test",
        "backends": {"files": {"type": "json"}, "vectors": {"type": "milvus", **declared}},
        "databases": {
            "notes": {"path": "./notes", "backend": "files", "embedding": {"model": "m", "dim": 4}}
        },
    }
    (tmp_path / "hybridrag.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hybridrag", "validate"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert "secret@" not in done.stdout + done.stderr


def test_selection_hands_lightrag_what_the_spec_says_and_hides_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Variables by LightRAG's names; the password is a secret, read when it is needed."""
    monkeypatch.setenv("MILVUS_TEST_PASSWORD", "pass word")
    server = MilvusServer(Path())
    login = {"user": "root", "password": {"env": "MILVUS_TEST_PASSWORD"}}
    selection = (
        server.backend("rag", index={"type": "hnsw", "m": 32}, **login)
        .store("", "notes", EMBEDDING)
        .selection()
    )
    assert selection.vector == "MilvusVectorDBStorage"
    assert selection.kv is selection.graph is selection.doc_status is None
    told = {
        "URI": server.uri,
        "DB_NAME": "rag",
        "WORKSPACE": "notes",
        "USER": "root",
        "INDEX_TYPE": "HNSW",
        "HNSW_M": "32",
    }
    assert {name: selection.variables[f"MILVUS_{name}"] for name in told} == told
    assert "pass word" not in repr(selection)
    assert {name: get() for name, get in selection.secrets.items()} == {"MILVUS_PASSWORD": "pass word"}


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
    await store.mark(FIRST, "switched")
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
