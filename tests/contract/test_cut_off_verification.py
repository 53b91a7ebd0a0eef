"""A verification that was cut off goes on with what it has not read yet, as long as neither side was written."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg

from hybridrag.actions.proving import ReadBefore
from hybridrag.journal import Journal
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.verifying import Report, compare
from hybridrag.migrate.watching import Watched
from hybridrag.model.data import Batch
from tests.conftest import Project, Server, clean_environment, digests
from tests.support.stores import example, meter, move, store
from tests.support.streams import NAMES


class CutOff(Exception):
    """The end of a run in the middle of its reading."""


class Streams:
    """A watcher that notes which streams were read."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.read: set[str] = set()
        self._stop_at = stop_at

    def add(self, batch: Batch) -> None:
        if batch.namespace == self._stop_at:
            raise CutOff
        self.read.add(batch.namespace)


async def test_finished_streams_are_not_read_again(server: Server, database: str, tmp_path: Path) -> None:
    """Nor believed when a side was written since; and damage in one that is read now is still found."""
    reader, target = example().reader(), store(server, database)
    await move(reader, target, state="copied")
    expected, _ = await examine_source(reader, target, NAMES, 100, meter())

    async def verify(streams: Streams) -> Report:
        with Journal(tmp_path / "journal.db") as journal:
            before = ReadBefore(journal, "o-1", f"source {await target.reader().fingerprint()}")
            written = Watched(target.reader(), streams)
            report = await compare(reader, target, written, expected, 100, meter(), before)
            before.drop()
            return report

    async def cut_off(at: str) -> None:
        streams = Streams(at)
        try:
            await verify(streams)
        except CutOff:
            assert streams.read == set(NAMES[: NAMES.index(at)])
            return
        raise AssertionError("it was not cut off")

    await cut_off("edges")
    rest = Streams()
    assert (await verify(rest)).equal
    assert rest.read == {"edges", "entities", "relationships", "chunks"}
    whole = Streams()
    assert (await verify(whole)).equal
    assert whole.read == set(NAMES), "what was proven once does not vouch for ever"

    await cut_off("edges")
    sql = await asyncpg.connect(server.dsn(database))
    await sql.execute(
        "UPDATE lightrag_doc_full SET content = 'x' WHERE id = (SELECT min(id) FROM lightrag_doc_full)"
    )
    await sql.close()
    streams = Streams()
    report = await verify(streams)
    assert (report.different, streams.read) == (1, set(NAMES))


async def test_ctrl_c_ends_the_command_in_words(project: Project) -> None:
    """Exit code 8, and nothing was written: it always begins anew."""
    project.ok("apply", "--auto-approve")
    before = digests(project.folder)
    sql = await asyncpg.connect(project.dsn)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("LOCK TABLE lightrag_graph_edges IN ACCESS EXCLUSIVE MODE")
    with subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
        [sys.executable, "-m", "hybridrag", "verify", "notes"],
        cwd=project.folder, env=clean_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        while not await sql.fetchval("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)"):
            assert process.poll() is None
            await asyncio.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        await asyncio.sleep(0.5)
        await transaction.rollback()
        _, said = process.communicate()
    await sql.close()
    assert process.returncode == 8
    assert "interrupted; nothing was written" in said
    assert "hybridrag verify notes" in said
    assert digests(project.folder) == before
