"""Fields that a target has no column for are part of the record: they go along, are verified, and come back whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.backends.json.files import file_of
from hybridrag.backends.json.records import RESERVED
from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.postgres.tables import TABLES
from hybridrag.migrate.catching_up import catch_up
from hybridrag.migrate.changing import carry, look_at
from hybridrag.migrate.digest import digest_stream
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.verifying import digest_targets
from hybridrag.model.data import NAMESPACES, Batch, Slot, streams_of
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Reader, Store
from tests.conftest import EXAMPLE, Server
from tests.support.hostile_records import good_json, good_text
from tests.support.stores import EMBEDDING, difference, meter, move, store

ROWS = 7
STREAMS = tuple(each.name for each in NAMESPACES if each.slot is not Slot.GRAPH and each.name in TABLES)
COUNTED = "SELECT workspace, count(*) FROM hybridrag_ledger.carried GROUP BY workspace"
_numbers = iter(range(1_000_000))
_names = (good_text | st.sampled_from(["is_multimodal", "page_idx", "model", "workspace", "nul\0"])).filter(
    lambda name: name and name not in RESERVED and name != "_id" and all(
        name != column.field for table in TABLES.values() for column in table.columns)
)  # fmt: skip
_extras = st.dictionaries(
    st.sampled_from(STREAMS),
    st.lists(st.dictionaries(_names, good_json | st.just("a\0b"), max_size=3), max_size=4),
    max_size=4,
)
Extras = dict[str, list[dict[str, Any]]]


def _files(folder: Path, extras: Extras) -> JsonStore:
    """The example, in which the first records of some streams have fields of somebody else."""
    shutil.copytree(EXAMPLE / "archive", folder)
    for stream, wanted in extras.items():
        path = folder / file_of(stream)
        whole = json.loads(path.read_text("utf-8"))
        records = whole["data"] if "data" in whole else list(whole.values())
        for record, fields in zip(records, wanted, strict=False):
            record.update(fields)
        path.write_text(json.dumps(whole, indent=None if "data" in whole else 2, ensure_ascii=False), "utf-8")
    return JsonStore("files", folder, EMBEDDING)


async def _carried(reader: Reader) -> dict[tuple[str, str], dict[str, Any]]:
    """By stream and key, the fields of every record that Postgres has no column for."""
    found = {}
    for stream in STREAMS:
        known = {column.field for column in TABLES[stream].columns}
        async for batch in reader.read(stream, rows=ROWS):
            for key, fields in zip(batch.keys, batch.fields, strict=True):
                if extra := {name: value for name, value in fields.items() if name not in known}:
                    found[stream, key] = extra
    return found


async def _to_files(source: Reader, folder: Path) -> JsonStore:
    target = JsonStore("files", folder, EMBEDDING)
    folder.mkdir()
    await move(source, target)  # type: ignore[arg-type]
    return target


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(extras=_extras)
def test_fields_of_somebody_else_come_back_from_postgres(
    extras: Extras, server: Server, database: str, tmp_path: Path
) -> None:
    """Files -> Postgres -> files in another folder -> another workspace in Postgres: every field of every record, and equal."""

    async def there_and_back() -> None:
        number = next(_numbers)
        files = _files(tmp_path / f"{number}", extras)
        wanted = await _carried(files.reader())
        one, other = (store(server, database, f"w{number}_{name}") for name in "ab")
        await move(files.reader(), one)
        assert (await difference(files.reader(), one)).equal
        assert await _carried(one.reader()) == wanted
        back = await _to_files(one.reader(), tmp_path / f"back-{number}")
        assert await _carried(back.reader()) == wanted
        await move(back.reader(), other)
        assert await _carried(other.reader()) == wanted
        assert (await difference(back.reader(), other)).equal

    asyncio.run(there_and_back())


MARKED: Extras = {
    "text_chunks": [{"page_idx": 1, "is_multimodal": True}, {"page_idx": None}, {"source_id": "\0é"}],
    "doc_status": [{"multimodal_processed": True}],
    "llm_response_cache": [{"model": "m"}],
    "entities": [{"weight": 0.5}],
    "chunks": [{"page_idx": [1, 2]}],
}


async def _keys(store_: Store, stream: str) -> list[str]:
    return [key async for batch in store_.reader().read(stream) for key in batch.keys]


async def test_what_lightrag_changes_and_deletes_meanwhile(
    server: Server, database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    """A changed record keeps its fields beside what is new; of a deleted one nothing comes back, nor is in the way."""
    files, target = _files(tmp_path / "notes", MARKED), store(server, database)
    await move(files.reader(), target)
    changed, gone, untouched = (await _keys(files, "text_chunks"))[:3]
    before = await target.reader().fingerprint()
    await sql.execute("UPDATE lightrag_doc_chunks SET tokens = 77 WHERE id = $1", changed)
    await sql.execute("DELETE FROM lightrag_doc_chunks WHERE id = $1", gone)
    assert await target.reader().fingerprint() != before
    back = await _to_files(target.reader(), tmp_path / "back")
    chunks = json.loads((tmp_path / "back" / "kv_store_text_chunks.json").read_text("utf-8"))
    assert (chunks[changed]["tokens"], chunks[changed]["page_idx"]) == (77, 1)
    assert gone not in chunks
    assert chunks[untouched]["source_id"] == "\0é"
    assert await _carried(back.reader()) == await _carried(target.reader())


async def test_they_belong_to_the_database_and_to_no_other(
    server: Server, database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    """Retired, overwritten or copied anew they go with the records; a neighbour's stay as they are."""
    files = _files(tmp_path / "notes", MARKED)
    neighbour, target = store(server, database, "neighbour"), store(server, database)
    await move(files.reader(), neighbour)
    print_of = await neighbour.reader().fingerprint()
    count = dict(await sql.fetch(COUNTED))["neighbour"]
    assert count == 7

    await move(files.reader(), target)
    assert dict(await sql.fetch(COUNTED)) == {"neighbour": count, "notes": count}
    await target.destroy_kept("o-1")
    assert dict(await sql.fetch(COUNTED)) == {"neighbour": count}

    await move(files.reader(), target)
    await target.make_way("o-1")
    assert dict(await sql.fetch(COUNTED)) == {"neighbour": count}

    await move(files.reader(), target, state="copied")
    async with target.open_writer("o-1", "another state") as writer:
        await writer.prepare()
    async with target.open_writer("o-2", "fingerprint") as writer:
        await writer.prepare()
        assert dict(await sql.fetch(COUNTED))["neighbour"] == count
    assert await neighbour.reader().fingerprint() == print_of
    assert len(await _carried(neighbour.reader())) == count


async def test_what_is_left_of_deleted_records_is_not_taken_for_new_ones(
    server: Server, database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    """A workspace that somebody emptied is copied to again: the fields are those of the new source."""
    marked, target = _files(tmp_path / "notes", MARKED), store(server, database)
    await move(marked.reader(), target)
    names = await sql.fetch(r"SELECT tablename FROM pg_tables WHERE tablename LIKE 'lightrag\_%'")
    await sql.execute("TRUNCATE " + ", ".join(row[0] for row in names))
    await sql.execute("TRUNCATE hybridrag_ledger.migration, hybridrag_ledger.checkpoint")
    plain = JsonStore("files", EXAMPLE / "archive", EMBEDDING)
    await move(plain.reader(), target, "o-2")
    assert await _carried(target.reader()) == {}
    assert (await difference(plain.reader(), target)).equal


class Killed(Exception):
    pass


class _CutOff:
    """A reader that fails in the middle of a stream."""

    def __init__(self, reader: Reader, stream: str, records: int) -> None:
        self._reader, self._stream, self._records = reader, stream, records

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        async for batch in self._reader.read(namespace, skip=skip, stop=stop, rows=rows):
            if namespace == self._stream and batch.position > self._records:
                raise Killed
            yield batch


@pytest.mark.parametrize(("stream", "records"), [("text_chunks", 2), ("entities", 0), ("chunks", 2)])
async def test_a_copy_that_was_cut_off_goes_on_with_them(
    stream: str, records: int, server: Server, database: str, tmp_path: Path
) -> None:
    """They are committed with the batch and its checkpoint: none twice, none missing."""
    files, target = _files(tmp_path / "notes", MARKED), store(server, database)
    with contextlib.suppress(Killed):
        await move(_CutOff(files.reader(), stream, records), target, rows=1)  # type: ignore[arg-type]
    await move(files.reader(), target, rows=1)
    assert await _carried(target.reader()) == await _carried(files.reader())
    assert (await difference(files.reader(), target)).equal


async def test_a_writer_that_goes_on_changes_them(server: Server, database: str, tmp_path: Path) -> None:
    """Fields that come, change and go during a copy are carried over alone, and by a whole pass."""
    files, target = _files(tmp_path / "notes", MARKED), store(server, database)
    await move(files.reader(), target, state="copied")
    streams = streams_of(target.slots)
    tables, _ = await examine_source(files.reader(), target, streams, ROWS, meter())
    mending, path = target.mending(), tmp_path / "notes" / "kv_store_text_chunks.json"

    def edit(number: int) -> None:
        whole = json.loads(path.read_text("utf-8"))
        one, two, three, four = list(whole)[:4]
        del whole[one]["is_multimodal"], whole[two]
        whole[three]["source_id"] = number
        whole[four]["new"] = {"by": ["somebody"]}
        new = path.with_suffix(".new")
        new.write_text(json.dumps(whole, indent=2, ensure_ascii=False), "utf-8")
        new.replace(path)

    async with files.reader().snapshot() as moment:
        edit(1)
        async with moment.until(files.reader()) as changes:
            assert changes is not None
            found = await look_at(changes, target, mending, streams, ROWS, lossy=False)
            async with mending.open("o-1") as patcher:
                await carry(found, changes, target, mending, patcher, tables, ROWS, meter())
    assert (await difference(files.reader(), target)).equal

    whole = json.loads(path.read_text("utf-8"))
    next(iter(whole.values()))["is_multimodal"] = False
    path.write_text(json.dumps(whole, indent=2, ensure_ascii=False), "utf-8")
    edit(2)
    wanted, _ = await examine_source(files.reader(), target, streams, ROWS, meter())
    held = await digest_targets(target.reader(), streams, ROWS, meter(), 1)
    async with mending.open("o-1") as patcher:
        await catch_up(files.reader(), target, mending, patcher, wanted, held, ROWS, meter())
    assert (await difference(files.reader(), target)).equal
    assert await _carried(target.reader()) == await _carried(files.reader())


async def test_a_lost_row_of_them_is_found(
    server: Server, database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    """Somebody empties the side table: the fingerprint is another one, and a comparison names the field."""
    files, target = _files(tmp_path / "notes", MARKED), store(server, database)
    await move(files.reader(), target)
    before = await target.reader().fingerprint()
    await sql.execute("DELETE FROM hybridrag_ledger.carried WHERE namespace = 'doc_status'")
    assert await target.reader().fingerprint() != before
    report = await difference(files.reader(), target)
    assert not report.equal
    assert [each.fields for each in report.listed] == [("multimodal_processed",)]


@pytest.mark.parametrize("value", [float("nan"), "\ud800", {"deep": [float("inf")]}, {"\udfff": 1}, 10**400])
def test_what_no_engine_gives_back_is_refused_with_its_name(
    value: Any, server: Server, database: str
) -> None:
    """NaN, halves of characters, integers beyond every parser: a bad record, as in any column."""
    batch = Batch(
        namespace="chunks",
        position=1,
        keys=["c"],
        fields=[{"odd": value}],
        vectors=np.ones((1, 96), np.float32),
    )
    found = Examination()
    assert len(store(server, database).examine(batch, found)) == 0
    assert "odd" in found.refused[0][2]
    assert digest_stream([]).records == 0
