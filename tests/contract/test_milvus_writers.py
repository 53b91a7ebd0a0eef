"""Writing to Milvus, which has no transactions: whatever is killed, each record is there once; one writer at a time."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from hybridrag.backends.milvus import lock
from hybridrag.backends.milvus.collections import VECTORS
from hybridrag.backends.milvus.store import MilvusStore
from hybridrag.errors import BackendUnavailable
from hybridrag.migrate.copying import copy
from tests.conftest import ROOT, clean_environment
from tests.support.milvus import MilvusServer
from tests.support.milvus_stores import EMBEDDING, FIRST, meter, move, records, source, store, verified  # noqa: F401

_WRITE = """
import asyncio, json, sys
from pathlib import Path
from hybridrag.migrate.copying import copy
from tests.support.milvus_stores import EMBEDDING, FIRST, meter, source
from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.milvus.backend import MilvusBackend
from hybridrag.backends.milvus.collections import VECTORS
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


@pytest.mark.long
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
