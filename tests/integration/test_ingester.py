"""Real LightRAG in its ingesting process, on files and on Postgres, with a model's stand-in that fails on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridrag.adapters.ingester import LightRagIngester
from hybridrag.backends.json.store import JsonStore
from hybridrag.errors import BackendUnavailable, SpecInvalid
from hybridrag.journal.watch_state import WriterLock
from hybridrag.model.ports import Store
from hybridrag.model.watching import Fate
from tests.conftest import DIM, Server
from tests.support.ingesting import SECRET, assert_holds, contents, doc, ingesting, text
from tests.support.model_server import ModelServer
from tests.support.stores import EMBEDDING, store


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(DIM) as server:
        yield server


@pytest.fixture
def files(tmp_path: Path) -> JsonStore:
    return JsonStore("files", tmp_path / "notes", EMBEDDING)


@pytest.fixture(params=["files", "postgres"])
def place(request: pytest.FixtureRequest) -> Store:
    """An empty place for a database, on either backend."""
    if request.param == "files":
        found: Store = request.getfixturevalue("files")
        return found
    return store(request.getfixturevalue("server"), request.getfixturevalue("database"))


async def fates(ingester: LightRagIngester, **files: str) -> dict[str, Fate]:
    """Ingest texts by name."""
    outcomes = await ingester.ingest([doc(name, content) for name, content in files.items()])
    return {item.name: item.fate for item in outcomes}


@pytest.mark.parametrize("place", [pytest.param("postgres", marks=pytest.mark.slow), "files"], indirect=True)
async def test_files_are_ingested_changed_and_recognised(
    place: Store, model: ModelServer, tmp_path: Path
) -> None:
    """Two files of one base name are two documents, equal content is one, a change replaces, nothing comes in twice."""
    odd = "[draft] 100%.[native].md"
    old = {"a/x.md": text(1), "b/x.md": text(2), odd: text(3)}
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        assert await ingester.known() == {}
        assert await fates(ingester, **old) == dict.fromkeys(old, Fate.INGESTED)
        await assert_holds(place, old)
        outcomes = await ingester.ingest([doc("copy.md", text(1)), doc("empty.md", " \n")])
        assert [(item.fate, item.reason) for item in outcomes] == [
            (Fate.KNOWN, '"a/x.md" has the same content'),
            (Fate.KNOWN, "it holds no text"),
        ]
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        assert await ingester.known() == {name: doc(name, content).digest for name, content in old.items()}
        asked = len(model.prompts)
        assert await fates(ingester, **old) == dict.fromkeys(old, Fate.KNOWN)
        assert len(model.prompts) == asked
        assert (
            await fates(ingester, **{"a/x.md": text(4), "copy.md": text(1)})
            == {
                "a/x.md": Fate.INGESTED,
                "copy.md": Fate.KNOWN,  # the old a/x.md stands until the new one is in; the next look finds it gone
            }
        )
        assert await fates(ingester, **{"copy.md": text(1)}) == {"copy.md": Fate.INGESTED}
    await assert_holds(place, {**old, "a/x.md": text(4), "copy.md": text(1)})


async def test_names_that_change_places_are_sorted_out(
    files: JsonStore, model: ModelServer, tmp_path: Path
) -> None:
    """Two files swap their contents: after two looks both are what they are on disk."""
    swapped = {"a.md": text(2), "b.md": text(1)}
    async with ingesting(files.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **{"a.md": text(1), "b.md": text(2)})
        await fates(ingester, **swapped)
        await fates(ingester, **swapped)
    await assert_holds(files, swapped)


@pytest.mark.parametrize("place", ["files"], indirect=True)
async def test_another_writers_documents_are_left_alone(
    place: Store, model: ModelServer, tmp_path: Path
) -> None:
    """Its name and its content are taken: the same content counts as known, another is refused with words."""
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **{"a.md": text(1)})
    path = tmp_path / "notes" / "kv_store_doc_status.json"
    path.write_text(path.read_text("utf-8").replace("hybridrag-", "upload-"), encoding="utf-8")
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        assert await ingester.known() == {}
        assert await fates(ingester, **{"a.md": text(1), "b.md": text(1)}) == {
            "a.md": Fate.KNOWN,
            "b.md": Fate.KNOWN,
        }
        [refused] = await ingester.ingest([doc("a.md", text(2))])
        assert refused.fate is Fate.FAILED
        assert "another writer" in str(refused.reason)
    assert len((await contents(place))["doc_status"]) == 1


@pytest.mark.parametrize("place", [pytest.param("postgres", marks=pytest.mark.slow), "files"], indirect=True)
async def test_a_refused_document_fails_alone(place: Store, model: ModelServer, tmp_path: Path) -> None:
    """The model refuses one text: it is FAILED with the model's word, the others are in; once accepted, so is it."""
    expected = {"a.md": text(1), "bad.md": "unspeakable. " + text(2), "c.md": text(3)}
    model.refused = "unspeakable"
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        outcomes = {
            item.name: item for item in await ingester.ingest([doc(*item) for item in expected.items()])
        }
        assert [outcomes[name].fate for name in expected] == [Fate.INGESTED, Fate.FAILED, Fate.INGESTED]
        assert "400" in str(outcomes["bad.md"].reason)
        assert set(await ingester.known()) == {"a.md", "c.md"}
        model.refused = None
        assert await fates(ingester, **expected) == {
            "a.md": Fate.KNOWN, "bad.md": Fate.INGESTED, "c.md": Fate.KNOWN,
        }  # fmt: skip
    await assert_holds(place, expected)


async def test_a_changed_document_that_is_refused_leaves_the_old_one(
    files: JsonStore, model: ModelServer, tmp_path: Path
) -> None:
    """The old document answers until the new one is in; undone, it is known again without a call to a model."""
    async with ingesting(files.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **{"a.md": text(1)})
        model.refused = "unspeakable"
        assert await fates(ingester, **{"a.md": "unspeakable. " + text(2)}) == {"a.md": Fate.FAILED}
        rows = (await contents(files))["doc_status"].values()
        assert sorted(row["status"] for row in rows) == ["failed", "processed"]
        asked = len(model.prompts)
        assert await fates(ingester, **{"a.md": text(1)}) == {"a.md": Fate.KNOWN}
        assert len(model.prompts) == asked
    await assert_holds(files, {"a.md": text(1)})


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("postgres", 500),
        ("files", 401),
        pytest.param("files", 500, marks=pytest.mark.long),
        pytest.param("postgres", 401, marks=pytest.mark.long),
    ],
    indirect=["place"],
)
@pytest.mark.slow
async def test_a_model_server_that_fails(
    place: Store, model: ModelServer, tmp_path: Path, status: int
) -> None:
    """500 is worth another attempt and 401 is not; what was begun is finished afterwards, once, and no key is told."""
    expected = {f"{number}.md": text(number) for number in range(3)}
    wrong = SpecInvalid if status == 401 else BackendUnavailable
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **{"0.md": text(0)})
        model.failing = status
        with pytest.raises(wrong) as caught:
            await fates(ingester, **expected)
        assert SECRET not in str(caught.value)
    model.failing = None
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **expected)
    await assert_holds(place, expected)
    assert model.keys == {f"Bearer {SECRET}"}
    assert SECRET not in (tmp_path / "watch" / "notes.log").read_text("utf-8")


@pytest.mark.slow
async def test_a_model_server_that_is_away(files: JsonStore, tmp_path: Path) -> None:
    """Refused connections: worth another attempt, and nothing is stored."""
    with ModelServer(DIM) as gone:
        pass
    async with ingesting(files.selection(), EMBEDDING, gone, tmp_path) as ingester:
        with pytest.raises(BackendUnavailable, match='the embedding model "hash-emb"'):
            await fates(ingester, **{"a.md": text(1)})
        assert await ingester.known() == {}


async def test_vectors_of_another_size_are_refused_before_anything_is_stored(
    place: Store, model: ModelServer, tmp_path: Path
) -> None:
    model.dim = DIM // 2
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        with pytest.raises(SpecInvalid, match=f"{DIM // 2} dimensions, but the database has {DIM}"):
            await fates(ingester, **{"a.md": text(1)})
        assert await ingester.known() == {}
        model.dim = DIM
        await fates(ingester, **{"a.md": text(1)})
    await assert_holds(place, {"a.md": text(1)})


@pytest.mark.parametrize(
    ("place", "kills"),
    [
        pytest.param("files", 4, marks=pytest.mark.long),
        ("postgres", 4),
        pytest.param("files", 25, marks=pytest.mark.long),
        pytest.param("postgres", 25, marks=pytest.mark.long),
    ],
    indirect=["place"],
)
@pytest.mark.slow
async def test_killed_at_any_moment_nothing_is_lost_or_doubled(
    place: Store, kills: int, model: ModelServer, tmp_path: Path
) -> None:
    """Half of the files are in and change while the process is killed again and again; in the end all is as on disk."""
    dice = random.Random(kills)
    model.delay_s = 0.05
    start = {f"{number}.md": text(number) for number in range(3)}
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **start)
    expected = {f"{number}.md": text(number + 10) for number in range(6)}
    for turn in range(kills):
        if turn % 5 == 4:  # and the files change meanwhile
            changed = dice.choice(sorted(expected))
            expected[changed] = text(100 + turn)
        async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
            work = asyncio.ensure_future(fates(ingester, **expected))
            await asyncio.wait({work}, timeout=dice.uniform(0.05, 4.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(ingester.pid or 0, signal.SIGKILL)
            with contextlib.suppress(BackendUnavailable):
                await work
    async with ingesting(place.selection(), EMBEDDING, model, tmp_path) as ingester:
        await fates(ingester, **expected)
        assert set(await ingester.known()) == set(expected)
    await assert_holds(place, expected)


async def test_the_writers_lock_is_held_until_the_process_is_gone(
    files: JsonStore, model: ModelServer, tmp_path: Path
) -> None:
    """A daemon that died is over only when its ingesting process is."""
    held, other = WriterLock(tmp_path / "notes.db"), WriterLock(tmp_path / "notes.db")
    assert held.take()
    async with ingesting(files.selection(), EMBEDDING, model, tmp_path, [held.fd]):
        held.close()
        assert not other.take()
    assert other.take()
    other.close()


async def test_a_process_that_dies_is_told_and_may_be_started_again(
    files: JsonStore, model: ModelServer, tmp_path: Path
) -> None:
    async with ingesting(files.selection(), EMBEDDING, model, tmp_path) as ingester:
        os.kill(ingester.pid or 0, signal.SIGKILL)
        with pytest.raises(BackendUnavailable, match="died"):
            await ingester.known()
        await ingester.start()
        assert await ingester.known() == {}


async def test_a_server_that_is_away_is_told_at_once(
    model: ModelServer, server: Server, tmp_path: Path
) -> None:
    gone = Server("127.0.0.1", 1, "tester", "a-secret-password")
    with pytest.raises(BackendUnavailable) as caught:
        async with ingesting(store(gone, "none").selection(), EMBEDDING, model, tmp_path):
            pass
    assert "a-secret-password" not in str(caught.value)
