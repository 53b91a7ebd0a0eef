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
from hybridrag.migrate.copying import copy
from hybridrag.migrate.digest import digest_stream
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.verifying import compare, digest_targets
from hybridrag.model.data import NAMESPACES, OTHER_STORES, Batch, Slot, streams_of
from hybridrag.model.findings import Examination
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Reader, Store
from tests.conftest import EXAMPLE, Server
from tests.support.hostile_records import good_json, good_text
from tests.support.stores import EMBEDDING, difference, meter, move, store

ROWS = 7
STREAMS = tuple(each.name for each in NAMESPACES if each.slot is not Slot.GRAPH and each.name != OTHER_STORES)
COUNTED = """
SELECT workspace, count(*) FROM (
    SELECT workspace FROM hybridrag_ledger.carried UNION ALL SELECT workspace FROM hybridrag_ledger.other_stores
) AS ours GROUP BY workspace
"""
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
_stores = st.dictionaries(
    st.sampled_from(["parse_cache", "a.b", "ключ 1", "full_docs.backup", "text_chunks2"]),
    st.dictionaries(good_text | st.just("k\x1fk"), good_json, min_size=1, max_size=9),
    max_size=3,
)
Stores = dict[str, dict[str, Any]]


def _files(folder: Path, extras: Extras, stores: Stores | None = None) -> JsonStore:
    """The example, in which the first records of some streams have fields of somebody else; and stores of somebody else."""
    shutil.copytree(EXAMPLE / "archive", folder)
    for stream, wanted in extras.items():
        path = folder / file_of(stream)
        whole = json.loads(path.read_text("utf-8"))
        records = whole["data"] if "data" in whole else list(whole.values())
        for record, fields in zip(records, wanted, strict=False):
            record.update(fields)
        path.write_text(json.dumps(whole, indent=None if "data" in whole else 2, ensure_ascii=False), "utf-8")
    for name, records in (stores or {}).items():
        text = json.dumps(records, indent=2, ensure_ascii=False)
        (folder / f"kv_store_{name}.json").write_text(text, "utf-8")
    return JsonStore("files", folder, EMBEDDING)


def _stores_in(folder: Path) -> Stores:
    own = {file_of(each.name) for each in NAMESPACES}
    found = sorted(path for path in folder.glob("kv_store_*.json") if path.name not in own)
    return {path.stem.removeprefix("kv_store_"): json.loads(path.read_text("utf-8")) for path in found}


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
@given(extras=_extras, stores=_stores)
def test_fields_of_somebody_else_come_back_from_postgres(
    extras: Extras, stores: Stores, server: Server, database: str, tmp_path: Path
) -> None:
    """Files -> Postgres -> files in another folder -> another workspace in Postgres: every field, every store, and equal."""

    async def there_and_back() -> None:
        number = next(_numbers)
        files = _files(tmp_path / f"{number}", extras, stores)
        wanted = await _carried(files.reader())
        one, other = (store(server, database, f"w{number}_{name}") for name in "ab")
        await move(files.reader(), one)
        assert (await difference(files.reader(), one)).equal
        assert await _carried(one.reader()) == wanted
        back = await _to_files(one.reader(), tmp_path / f"back-{number}")
        assert await _carried(back.reader()) == wanted
        assert _stores_in(tmp_path / f"back-{number}") == stores
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


STORES: Stores = {
    "parse_cache": {
        f"{number:032x}": {"content_list": [{"page_idx": number}], "_id": "x"} for number in range(30)
    },
    "z": {"": None, "list": [1.5, "\0"], "text": "é"},
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
    files = _files(tmp_path / "notes", MARKED, STORES)
    neighbour, target = store(server, database, "neighbour"), store(server, database)
    await move(files.reader(), neighbour)
    print_of = await neighbour.reader().fingerprint()
    count = dict(await sql.fetch(COUNTED))["neighbour"]
    assert count == 7 + 33

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
    assert len(await _carried(neighbour.reader())) + len(await _keys(neighbour, OTHER_STORES)) == count


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


@pytest.mark.parametrize(("stream", "records"), [("text_chunks", 2), ("chunks", 2), ("other_stores", 31)])
async def test_a_copy_that_was_cut_off_goes_on_with_them(
    stream: str, records: int, server: Server, database: str, tmp_path: Path
) -> None:
    """They are committed with the batch and its checkpoint: none twice, none missing."""
    files, target = _files(tmp_path / "notes", MARKED, STORES), store(server, database)
    with contextlib.suppress(Killed):
        await move(_CutOff(files.reader(), stream, records), target, rows=1)  # type: ignore[arg-type]
    await move(files.reader(), target, rows=1)
    assert await _carried(target.reader()) == await _carried(files.reader())
    assert (await difference(files.reader(), target)).equal

    (tmp_path / "back").mkdir()
    back = JsonStore("files", tmp_path / "back", EMBEDDING)
    with contextlib.suppress(Killed):
        await move(_CutOff(target.reader(), stream, records), back, rows=1)  # type: ignore[arg-type]
    await move(target.reader(), back, rows=1)  # type: ignore[arg-type]
    assert _stores_in(tmp_path / "back") == STORES
    assert await _carried(back.reader()) == await _carried(files.reader())


async def test_a_writer_that_goes_on_changes_them(server: Server, database: str, tmp_path: Path) -> None:
    """Fields and records of other stores that come, change and go are carried over alone, and by a whole pass."""
    files, target = _files(tmp_path / "notes", MARKED, STORES), store(server, database)
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
        kept = STORES["parse_cache"]
        cache = {
            key: {"edited": number} if index == 3 else kept[key]
            for index, key in enumerate(kept)
            if index != 5
        }
        new.write_text(json.dumps({**cache, f"new{number}": {}}, indent=2), "utf-8")
        new.replace(path.with_name("kv_store_parse_cache.json"))

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
    path.with_name("kv_store_z.json").unlink()
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


async def test_files_of_other_stores_are_published_kept_and_retired_with_the_database(
    server: Server, database: str, tmp_path: Path
) -> None:
    """What stood there is moved aside, a withdrawal brings it back, a deletion of what is kept takes both."""
    folder, target = tmp_path / "notes", store(server, database)
    files = _files(folder, MARKED, {**STORES, "own": {"k": 1}})
    await move(files.reader(), target)
    newer = {**STORES, "parse_cache": {"only": "newer"}}
    again = _files(tmp_path / "newer", MARKED, newer)
    async with files.open_writer("o-2", "fingerprint", replaces="kept") as writer:
        await copy(again.reader(), writer, streams_of(files.slots), await writer.prepare(), ROWS, meter())
        await writer.finish(lambda phase: None)
    await files.mark("o-2", MarkState.VERIFIED)
    assert _stores_in(folder)["parse_cache"] == STORES["parse_cache"]
    await files.mark("o-2", MarkState.SWITCHED)
    assert _stores_in(folder) == {**newer, "own": {"k": 1}}, "what no copy replaces stays"
    report = await compare(
        again.reader(), files, files.written("o-2"),
        (await examine_source(again.reader(), files, streams_of(files.slots), ROWS, meter()))[0], ROWS, meter(),
    )  # fmt: skip
    assert report.equal
    await files.withdraw("o-2")
    assert _stores_in(folder) == {**STORES, "own": {"k": 1}}
    await files.mark("o-2", MarkState.SWITCHED)
    await files.destroy_kept("o-2")
    assert list(folder.rglob("kv_store_*")) == []


@pytest.mark.parametrize(
    "key", ["../x\x1fk", "full_docs\x1fk", "k", "a/b\x1fk", "x" * 250 + "\x1fk", "\x1fk"]
)
def test_a_store_whose_name_is_no_file_of_its_own_is_refused(key: str, tmp_path: Path) -> None:
    """Nothing leaves the folder, and no store of LightRAG's is written through another name."""
    batch = Batch(namespace=OTHER_STORES, position=1, keys=[key], fields=[{"value": 1}])
    found = Examination()
    assert len(JsonStore("files", tmp_path, EMBEDDING).examine(batch, found)) == 0
    assert "no file of another store" in found.refused[0][2]
