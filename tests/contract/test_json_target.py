"""JSON files as the target of a migration: the way back from Postgres, kills, a full disk, and what stood there before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.json.files import FILES
from hybridrag.backends.json.records import ALWAYS
from hybridrag.backends.json.store import JsonReader, JsonStore
from hybridrag.backends.postgres.backend import PostgresBackend
from hybridrag.backends.postgres.spec import PostgresSpec
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.verifying import compare
from hybridrag.model.data import BY_NAME, Batch, Slot
from hybridrag.model.findings import Examination
from hybridrag.model.marks import MarkState
from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE, OLD_DATABASE, Server, digests
from tests.integration.test_lightrag_answers import MODES, QUESTIONS, TOP_K, both, same
from tests.support.json_copy import IDENTITY, meter, migrate, publish, publish_until, store_of, whole
from tests.support.same_answers import order_differences
from tests.support.streams import NAMES

ARCHIVE, OLD = EXAMPLE / "archive", pytest.param(OLD_DATABASE, marks=pytest.mark.slow)
SPEC = """\
version: 1
environment: test
backends: {files: {type: json}}
databases:
  notes:
    path: ./notes
    backend: files
    embedding: {model: hash-emb, dim: 96, function: "embedding.py:embed"}
"""


@dataclass(frozen=True)
class Written:
    """A store as `compare` sees it before it is published."""

    store: JsonStore

    def reader(self) -> JsonReader:
        return self.store.written(IDENTITY)

    def examine(self, batch: Batch, into: Examination) -> Batch:
        return self.store.examine(batch, into)

    async def related(self) -> list[str]:
        return await self.store.related()


def published(folder: Path) -> dict[str, str]:
    """Digests of the database's own files."""
    return {name: digest for name, digest in digests(folder).items() if not name.startswith(".hybridrag")}


async def everything(reader: Any) -> dict[tuple[str, str], tuple[dict[str, Any], bytes]]:
    found = {}
    for name in NAMES:
        async for batch in reader.read(name):
            for index, key in enumerate(batch.keys):
                vector = b"" if batch.vectors is None else batch.vectors[index].tobytes()
                found[name, key] = (batch.fields[index], vector)
    return found


# --- the way back from Postgres -----------------------------------------------------------------------


async def verified(source: Any, target: Any, view: Any, **options: Any) -> None:
    """Examine, copy, compare: as a migration does it."""
    expected, examination = await examine_source(source.reader(), target, NAMES, 100, meter())
    assert examination.refused == []
    assert examination.lost == {}
    await migrate(source.reader(), target, rows=50, **options)
    report = await compare(source.reader(), view, view.reader(), expected, 70, meter())
    assert report.equal, report
    assert report.records == sum(table.records for table in expected.values()) > 100


@pytest.mark.parametrize("data", [ARCHIVE, OLD], ids=["1.5.7", "1.4.9.8"])
async def test_from_json_to_postgres_and_back(
    data: Path, tmp_path: Path, server: Server, database: str
) -> None:
    """Record for record what went in; LightRAG opens it, answers the same, and inserts and deletes as before."""
    spec = PostgresSpec.model_validate(
        {"type": "postgres", "host": server.host, "port": server.port, "user": server.user, "database": database,
         "password": {"env": "PW"}}
    )  # fmt: skip
    backend = PostgresBackend(
        "pg", spec, environment="test", state=Path(), secrets=Secrets({"PW": server.password}, Path()),
        schema=LightRagSchema(),
    )  # fmt: skip
    postgres = backend.store("unused", "notes", Embedding(model="hash-emb", dim=DIM))
    sides = [tmp_path / "before", tmp_path / "after"]
    for side in sides:
        side.mkdir()
        shutil.copy(EXAMPLE / "embedding.py", side)
        (side / "hybridrag.yaml").write_text(SPEC, encoding="utf-8")
    shutil.copytree(data, sides[0] / "notes")
    source, back = store_of(sides[0] / "notes", DIM), store_of(sides[1] / "notes", DIM)
    await verified(source, postgres, postgres)
    await verified(postgres, back, Written(back))
    await publish(back)

    original, returned = await everything(source.reader()), await everything(back.reader())
    assert original.keys() == returned.keys()
    for (name, key), (fields, vector) in original.items():
        batch = Batch(namespace=name, position=1, keys=[key], fields=[fields])
        form = postgres.examine(batch, Examination()).fields[0]
        if name == "edges":
            form["weight"] = float(form["weight"])
        assert returned[name, key][0] == {**ALWAYS.get(name, {}), **form}
        assert len(vector) == len(returned[name, key][1])

    task = {"questions": QUESTIONS, "modes": MODES, "top_k": TOP_K}
    before, after = both("ask", *sides, **task)
    assert after["storages"] == ["JsonKVStorage", "NanoVectorDBStorage"]
    assert same(before["answers"], after["answers"]) == []
    for question, scored in before["rankings"].items():
        assert order_differences(scored, [name for name, _ in after["rankings"][question]]) == []
    if data == OLD_DATABASE:
        return
    gone, status = next(iter(json.loads((data / "kv_store_doc_status.json").read_text("utf-8")).items()))
    text = " ".join(
        f"«Zoë Müller» leads «tide tables» at «Ōsaka Harbour» in cycle {n}." for n in range(900, 912)
    )
    edited = both(
        "edit", *sides, insert=text, file="hafen_é.txt", delete=gone, delete_chunks=status["chunks_list"],
        questions=QUESTIONS[:6], modes=MODES, top_k=TOP_K,
    )  # fmt: skip
    for side in edited:
        assert (side["deletion"], side["status"], side["deleted_chunks"]) == ("success", "processed", [])
        assert "Ōsaka Harbour" in side["nodes"]
    assert edited[0]["nodes"] == edited[1]["nodes"]
    assert edited[0]["entity_chunks"] == edited[1]["entity_chunks"]
    assert same(edited[0]["answers"], edited[1]["answers"], ignore=["created_at"]) == []


# --- kills --------------------------------------------------------------------------------------------

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.support.json_copy"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """What an undisturbed copy makes of the example, and how long it takes (seconds)."""
    folder = tmp_path_factory.mktemp("reference")
    started = time.monotonic()
    whole(ARCHIVE, folder, DIM, 3)
    return folder, time.monotonic() - started


def test_a_copy_killed_twenty_times_is_the_same_to_the_byte(
    reference: tuple[Path, float], tmp_path: Path
) -> None:
    """SIGKILL at random moments; every run goes on where the one before had committed."""
    folder, seconds = reference
    kills = resumed = rounds = 0
    while kills < 20:
        target = tmp_path / str(rounds)
        rounds += 1
        code: int | None = -signal.SIGKILL
        while code:
            process = _processes.Process(target=whole, args=(ARCHIVE, target, DIM, 3))
            process.start()
            process.join(random.uniform(0.05, 0.9) * seconds if kills < 20 else None)
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
                resumed += bool(committed(target))
            code = process.exitcode
            assert code in (0, -signal.SIGKILL)
        assert published(target) == published(folder)
        assert [path.name for path in (target / ".hybridrag" / IDENTITY).iterdir()] == ["manifest.json"]
    assert resumed


def committed(folder: Path) -> int:
    _, details = asyncio.run(store_of(folder, DIM).observe())
    records = details.get("checkpoint_records", 0)
    assert isinstance(records, int)
    return records


def test_a_kill_in_the_middle_of_publishing_is_finished_by_the_next_mark(
    reference: tuple[Path, float], tmp_path: Path
) -> None:
    """Before every single renaming; until all are done the state is "verified", and nothing that stood there is lost."""
    expected = published(reference[0])
    prepared = tmp_path / "prepared"
    shutil.copytree(OLD_DATABASE, prepared)
    asyncio.run(migrate(store_of(ARCHIVE, DIM).reader(), store_of(prepared, DIM), rows=100, replaces=True))
    asyncio.run(store_of(prepared, DIM).mark(IDENTITY, MarkState.VERIFIED))
    before = published(prepared)
    for calls in range(len(FILES) * 2 + 3):
        folder = tmp_path / f"killed-{calls}"
        shutil.copytree(prepared, folder)
        process = _processes.Process(target=publish_until, args=(folder, DIM, calls))
        process.start()
        process.join()
        done = process.exitcode == 0
        assert done or process.exitcode == -signal.SIGKILL
        store = store_of(folder, DIM)
        facts, _ = asyncio.run(store.observe())
        assert facts["state"] == ("switched" if done else "verified")
        assert len(asyncio.run(everything(store.written(IDENTITY)))) > 100  # readable wherever the files lie
        asyncio.run(store.mark(IDENTITY, MarkState.SWITCHED))
        facts, _ = asyncio.run(store.observe())
        assert facts["state"] == "switched"
        assert published(folder) == expected
        assert digests(folder / ".hybridrag" / f"before-{IDENTITY}") == before
    assert done, "the last round was killed nowhere"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, far too small for the example."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "hybridrag-test", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs (root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_in_words_and_the_next_run_goes_on(
    reference: tuple[Path, float], small_disk: Path
) -> None:
    """What was committed before stays; nothing is published half."""
    folder = small_disk / "notes"
    with pytest.raises(BackendUnavailable, match="no space left on device") as error:
        whole(ARCHIVE, folder, DIM, 3)
    assert "free disk space" in str(error.value)
    assert committed(folder) > 0
    assert published(folder) == {}
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    whole(ARCHIVE, folder, DIM, 3)
    assert published(folder) == published(reference[0])


# --- whose files they are -----------------------------------------------------------------------------


async def test_files_of_somebody_else_are_never_replaced(tmp_path: Path) -> None:
    """Neither those that are there before, nor those that appear while it is copied."""
    shutil.copytree(OLD_DATABASE, tmp_path / "old")
    before = digests(tmp_path / "old")
    store = store_of(tmp_path / "old", DIM)
    with pytest.raises(PlanRefused, match=r'already holds "kv_store_full_docs.json", which is not ours'):
        await migrate(store_of(ARCHIVE, DIM).reader(), store, rows=100)
    assert published(tmp_path / "old") == before

    new = store_of(tmp_path / "new", DIM)
    await migrate(store_of(ARCHIVE, DIM).reader(), new, rows=100)
    await new.mark(IDENTITY, MarkState.VERIFIED)
    (tmp_path / "new" / "vdb_chunks.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PlanRefused, match="written by somebody else meanwhile"):
        await new.mark(IDENTITY, MarkState.SWITCHED)
    facts, _ = await new.observe()
    assert facts["state"] == "verified"
    assert list(published(tmp_path / "new")) == ["vdb_chunks.json"]
    (tmp_path / "new" / "vdb_chunks.json").unlink()
    await new.mark(IDENTITY, MarkState.SWITCHED)
    assert set(published(tmp_path / "new")) == set(FILES)


async def test_what_is_staged_is_no_database_yet(tmp_path: Path) -> None:
    """Its records are told as details; taken back, it is staged again."""
    store = store_of(tmp_path, DIM)
    await migrate(store_of(ARCHIVE, DIM).reader(), store, rows=100)
    facts, details = await store.observe()
    assert (facts["exists"], facts["migration"], facts["state"]) == (False, IDENTITY, "copied")
    assert facts["source_fingerprint"] == "fingerprint"
    assert details["staged/full_docs"] == 14
    await publish(store)
    facts, _ = await store.observe()
    assert (facts["exists"], facts["state"], facts["records/full_docs"]) == (True, "switched", 14)


async def test_back_and_forth_keeps_every_earlier_state(tmp_path: Path) -> None:
    """A second migration into the same folder moves the first one's files aside, and its mark is forgotten."""
    store = store_of(tmp_path, DIM)
    await migrate(store_of(OLD_DATABASE, DIM).reader(), store, rows=100, identity="owner-1")
    await publish(store, "owner-1")
    first = published(tmp_path)
    await migrate(store_of(ARCHIVE, DIM).reader(), store, rows=100, identity="owner-2", replaces=True)
    facts, _ = await store.observe()
    assert (facts["migration"], facts["state"], facts["records/full_docs"]) == ("owner-2", "copied", 4)
    await publish(store, "owner-2")
    assert digests(tmp_path / ".hybridrag" / "before-owner-2") == first
    names = {path.name for path in (tmp_path / ".hybridrag").iterdir() if path.is_dir()}
    assert names == {"owner-2", "before-owner-2"}


async def test_slots_move_one_by_one(tmp_path: Path) -> None:
    """Vectors first, then the rest: each with marks and locks of its own, in one folder."""
    embedding = Embedding(model="hash-emb", dim=DIM)
    vectors = JsonStore("files", tmp_path, embedding, frozenset({Slot.VECTOR}))
    rest = JsonStore("files", tmp_path, embedding, frozenset({Slot.KV, Slot.DOC_STATUS, Slot.GRAPH}))
    reader = store_of(ARCHIVE, DIM).reader()
    await migrate(reader, vectors, rows=100, identity="owner-1")
    await migrate(reader, rest, rows=100, identity="owner-2")
    await publish(vectors, "owner-1")
    assert set(published(tmp_path)) == {name for name in FILES if name.startswith("vdb_")}
    assert (await vectors.observe())[0]["state"] == "switched"
    assert (await rest.observe())[0]["state"] == "copied"
    await publish(rest, "owner-2")
    assert set(published(tmp_path)) == set(FILES)
    for store, slots in ((vectors, vectors.slots), (rest, rest.slots)):
        facts, _ = await store.observe()
        counted = {key for key in facts if key.startswith("records/")}
        assert counted == {f"records/{name}" for name in NAMES if BY_NAME[name].slot in slots}


async def test_two_sessions_never_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one waits, and says so when the first does not end."""
    monkeypatch.setattr("hybridrag.backends.json.publishing.LOCK_PATIENCE_S", 0.2)
    store = store_of(tmp_path, DIM)
    async with store.open_writer("owner-1", "f"):
        with pytest.raises(BackendUnavailable, match="another session of hybridrag"):
            async with store.open_writer("owner-1", "f"):
                pass
    async with store.open_writer("owner-1", "f") as writer:
        assert await writer.prepare() == {}


async def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(BackendUnavailable, match="cannot be written: not a directory"):
        await migrate(store_of(ARCHIVE, DIM).reader(), store_of(tmp_path / "file" / "notes", DIM), rows=9)


async def test_damaged_marks_are_said_in_words(tmp_path: Path) -> None:
    """A manifest that is no manifest, and staged bytes that are gone."""
    store = store_of(tmp_path, DIM)
    with contextlib.suppress(RuntimeError):
        async with store.open_writer(IDENTITY, "fingerprint") as writer:
            await writer.prepare()
            batch = Batch(namespace="full_docs", position=1, keys=["k"], fields=[{"content": "x"}])
            await writer.write(writer.encode(batch))
            raise RuntimeError
    staged = tmp_path / ".hybridrag" / IDENTITY
    (staged / "kv_store_full_docs.json").write_bytes(b"{")
    with pytest.raises(BackendUnavailable, match="shorter than it was"):
        await migrate(store_of(ARCHIVE, DIM).reader(), store, rows=100)
    (staged / "manifest.json").write_bytes(b"{")
    with pytest.raises(BackendUnavailable, match="damaged"):
        await store.observe()
    shutil.rmtree(staged)
    await migrate(store_of(ARCHIVE, DIM).reader(), store, rows=100)
