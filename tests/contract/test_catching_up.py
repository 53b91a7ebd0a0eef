"""A finished copy is brought up to a later state: by what differs alone, or by a whole pass; never by half."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.milvus.store import MilvusStore
from hybridrag.backends.postgres import moment as postgres_moment
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.errors import PlanRefused, VerificationFailed
from hybridrag.migrate import catching_up
from hybridrag.migrate.catching_up import Delta, apart, catch_up, digests_of
from hybridrag.migrate.changing import NeedsWholePass, carry, look_at
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.model.data import NAMESPACES, Batch, streams_of
from hybridrag.model.ports import Moment, Reader, Store
from tests.conftest import EXAMPLE, Server
from tests.contract.test_milvus import EMBEDDING as MILVUS_EMBEDDING
from tests.contract.test_milvus import move as move_vectors
from tests.contract.test_milvus import source as vectors_of
from tests.support.milvus import MilvusServer
from tests.support.stores import EMBEDDING, difference, meter, move, store

NAMES = [namespace.name for namespace in NAMESPACES]
WRITES = {
    "an update": "UPDATE lightrag_doc_full SET content = content || 'x' WHERE workspace = 'notes' AND id IN "
    "(SELECT id FROM lightrag_doc_full WHERE workspace = 'notes' LIMIT 3)",
    "a deletion": "DELETE FROM lightrag_doc_chunks WHERE workspace = 'notes' AND id IN "
    "(SELECT id FROM lightrag_doc_chunks WHERE workspace = 'notes' ORDER BY id LIMIT 2)",
    "an insertion": "INSERT INTO lightrag_doc_full (id, workspace, doc_name, content) VALUES ('new', 'notes', 'n', 'c')",
    "one row for another": "WITH gone AS (DELETE FROM lightrag_doc_full WHERE workspace = 'notes' AND id = "
    "(SELECT min(id) FROM lightrag_doc_full WHERE workspace = 'notes')) "
    "INSERT INTO lightrag_doc_full (id, workspace, doc_name, content) VALUES ('other', 'notes', 'n', 'c')",
    "an update that changes nothing": "UPDATE lightrag_doc_status SET status = status WHERE workspace = 'notes'",
    "a neighbour's": "UPDATE lightrag_doc_full SET content = '' WHERE workspace = 'neighbour'",
}


async def _all(reader: Reader, name: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async for batch in reader.read(name, rows=50):
        found.update(digests_of(batch))
    return found


async def _check(moment: Moment, later: Reader) -> None:
    async with moment.until(later) as changes:
        assert changes is not None
        for name in NAMES:
            whole, now = await _all(moment, name), await _all(later, name)
            before, after = await _all(changes.before, name), await _all(changes.after, name)
            assert before.items() <= whole.items()
            kept = {key: digest for key, digest in whole.items() if key not in before}
            assert kept.keys().isdisjoint(after)
            assert {**kept, **after} == now


async def test_postgres_tells_what_was_written_since_a_moment(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    reader = store(server, database).reader()
    chosen = random.Random()
    async with reader.snapshot() as moment:
        await _check(moment, reader)
        for words in chosen.sample(sorted(WRITES), len(WRITES)):
            await filled.execute(WRITES[words])
            await _check(moment, reader)
        async with reader.snapshot() as later:
            await filled.execute("DELETE FROM lightrag_graph_edges WHERE workspace = 'notes'")
            await _check(moment, later)
            await _check(later, reader)


async def test_what_was_under_way_at_the_moment_is_found(
    server: Server, database: str, filled: asyncpg.Connection
) -> None:
    """Also what a part of a transaction wrote (a savepoint has a number of its own), however many began and ended since."""
    reader = store(server, database).reader()
    other = await asyncpg.connect(server.dsn(database))
    try:
        async with filled.transaction():
            await filled.execute(WRITES["an insertion"])
            async with filled.transaction():
                await filled.execute(WRITES["an update"])
            await other.execute(WRITES["a deletion"])
            async with reader.snapshot() as moment:
                await other.execute(WRITES["a neighbour's"])
                await _check(moment, reader)
                # Not committed yet, and so not there; then it is.
                await filled.execute("SAVEPOINT late")
                held = moment
                await _commit_and_check(filled, held, reader)
    finally:
        await other.close()


async def _commit_and_check(filled: asyncpg.Connection, moment: Moment, reader: Reader) -> None:
    await filled.execute("COMMIT")
    await filled.execute("BEGIN")  # for the block that began the first one
    await _check(moment, reader)


async def test_too_much_of_postgres_is_left_to_a_whole_pass(
    server: Server, database: str, filled: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_moment, "MOST", 2)
    reader = store(server, database).reader()
    async with reader.snapshot() as moment:
        await filled.execute(WRITES["an update"])
        async with moment.until(reader) as changes:
            assert changes is None


class Copied:
    """The example in files, and a finished copy of it in Postgres."""

    def __init__(self, folder: Path, target: PostgresStore) -> None:
        self.folder = folder
        self.files = JsonStore("files", folder, EMBEDDING)
        self.target = target
        self.streams = streams_of(target.slots)
        self.tables: dict[str, NamespaceDigest] = {}

    def change(self, name: str, edit: Any) -> None:
        """Replace a KV file, as LightRAG does."""
        path = self.folder / f"kv_store_{name}.json"
        value = edit(json.loads(path.read_text("utf-8")))
        new = path.with_suffix(".new")
        new.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
        new.replace(path)

    def change_text(self, name: str, edit: Any) -> None:
        path = self.folder / name
        new = path.with_suffix(".new")
        new.write_text(edit(path.read_text("utf-8")), encoding="utf-8")
        new.replace(path)

    async def by_what_differs(self, moment: Moment) -> Delta:
        mending = self.target.mending()
        async with moment.until(self.files.reader()) as changes:
            assert changes is not None
            found = await look_at(changes, self.target, mending, self.streams, 50, lossy=False)
            async with mending.open("o-1") as patcher:
                return await carry(found, changes, self.target, mending, patcher, self.tables, 50, meter())


@pytest.fixture
async def copied(server: Server, database: str, tmp_path: Path) -> Copied:
    shutil.copytree(EXAMPLE / "archive", tmp_path / "notes")
    found = Copied(tmp_path / "notes", store(server, database))
    await move(found.files.reader(), found.target, state="copied")
    found.tables, _ = await examine_source(found.files.reader(), found.target, found.streams, 50, meter())
    return found


async def test_only_what_differs_is_written_and_the_table_is_that_of_the_new_state(copied: Copied) -> None:
    async with copied.files.reader().snapshot() as moment:
        copied.change(
            "full_docs", lambda docs: {**dict(list(docs.items())[1:]), "doc-new": {"content": "new"}}
        )
        copied.change("text_chunks", _cut_anew)
        copied.change_text(
            "graph_chunk_entity_relation.graphml", lambda text: text.replace("maintains", "keeps", 1)
        )
        delta = await copied.by_what_differs(moment)
    assert (delta.put, delta.removed) == (3, 1)
    tables, _ = await examine_source(copied.files.reader(), copied.target, copied.streams, 50, meter())
    assert apart(tables, copied.tables) == []
    assert (await difference(copied.files.reader(), copied.target)).equal


def _cut_anew(chunks: dict[str, Any]) -> dict[str, Any]:
    """One chunk counts other tokens; its vector's row in Postgres repeats them, though its record does not change."""
    key = next(iter(chunks))
    return {**chunks, key: {**chunks[key], "tokens": 1}}


def _first_node_gone(text: str) -> str:
    start, end = text.index("<node "), text.index("</node>") + len("</node>\n")
    return text[:start] + text[end:]


def _edge_to_nowhere(text: str) -> str:
    return text.replace("</graph>", '<edge source="nobody" target="nowhere">\n</edge>\n</graph>')


def _other_way_round(text: str) -> str:
    """The first edge once more, with its ends exchanged: the same edge."""
    start, end = text.index("<edge "), text.index("</edge>") + len("</edge>")
    edge = text[start:end]
    ends = edge[: edge.index(">")]
    source, target = ends.split('"')[1], ends.split('"')[3]
    twin = edge.replace(ends, f'<edge source="{target}" target="{source}"')
    return text.replace("\n</graph>", f"\n{twin}\n</graph>")


@pytest.mark.parametrize("edit", [_first_node_gone, _edge_to_nowhere, _other_way_round])
async def test_what_breaks_a_rule_is_not_judged_by_itself(copied: Copied, edit: Any) -> None:
    """A node whose edges stay, an edge without its node, an edge twice: nothing is written, everything is examined."""
    async with copied.files.reader().snapshot() as moment:
        copied.change_text("graph_chunk_entity_relation.graphml", edit)
        with pytest.raises(NeedsWholePass):
            await copied.by_what_differs(moment)
    facts, _ = await copied.target.observe()
    assert facts["state"] == "copied"


async def test_a_record_that_cannot_be_held_is_not_judged_by_itself(copied: Copied) -> None:
    async with copied.files.reader().snapshot() as moment:
        copied.change("full_docs", lambda docs: {**docs, "doc-new": {"content": "\x00"}})
        with pytest.raises(NeedsWholePass):
            await copied.by_what_differs(moment)


async def test_a_whole_pass_in_small_groups(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything differs, and few keys are held at once: the copy is that of the new state all the same."""
    monkeypatch.setattr(catching_up, "HELD", 3)
    held = copied.tables
    copied.change(
        "text_chunks", lambda chunks: {f"{key}-x": {**one, "tokens": 1} for key, one in chunks.items()}
    )
    copied.change("full_docs", lambda docs: {})
    wanted, _ = await examine_source(copied.files.reader(), copied.target, copied.streams, 50, meter())
    mending = copied.target.mending()
    async with mending.open("o-1") as patcher:
        delta = await catch_up(
            copied.files.reader(), copied.target, mending, patcher, wanted, held, 50, meter()
        )
    assert apart(wanted, held) == []
    assert delta.removed > 10
    assert (await difference(copied.files.reader(), copied.target)).equal


async def test_a_whole_pass_writes_only_what_differs(copied: Copied) -> None:
    """Records changed in their place, one added, one taken out: four writes, and what is held stays in step with them."""
    copied.change("text_chunks", _cut_anew)
    copied.change(
        "full_docs",
        lambda docs: {
            **dict(list(docs.items())[2:]),
            next(iter(docs)): {"content": "changed"},
            "doc-new": {"content": "new"},
        },
    )
    wanted, _ = await examine_source(copied.files.reader(), copied.target, copied.streams, 50, meter())
    assert sorted(apart(wanted, copied.tables)) == ["full_docs", "text_chunks"]
    mending = copied.target.mending()
    async with mending.open("o-1") as patcher:
        delta = await catch_up(
            copied.files.reader(), copied.target, mending, patcher, wanted, copied.tables, 50, meter()
        )
    assert (delta.put, delta.removed, delta.records) == (3, 1, 4)
    assert apart(wanted, copied.tables) == []
    assert (await difference(copied.files.reader(), copied.target)).equal


async def test_few_keys_are_held_while_removals_are_looked_for(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many groups of buckets as the limit asks for, each with one look at the source; without a limit one look."""
    looks: list[str] = []

    class Counting:
        def __init__(self, reader: Reader) -> None:
            self._reader = reader

        def read(self, namespace: str, **more: Any) -> AsyncIterator[Batch]:
            looks.append(namespace)
            return self._reader.read(namespace, **more)

    kept = json.loads((copied.folder / "kv_store_full_docs.json").read_text("utf-8"))
    mending = copied.target.mending()
    for limit, groups in ((2, len(kept) // 2), (50_000, 1)):
        copied.change("full_docs", lambda docs: {})
        wanted, _ = await examine_source(copied.files.reader(), copied.target, copied.streams, 50, meter())
        monkeypatch.setattr(catching_up, "HELD", limit)
        looks.clear()
        async with mending.open("o-1") as patcher:
            delta = await catch_up(
                Counting(copied.files.reader()), copied.target, mending, patcher,  # type: ignore[arg-type]
                wanted, copied.tables, 50, meter(),
            )  # fmt: skip
            assert (delta.put, delta.removed) == (0, len(kept))
            assert len(looks) >= 1 + groups
            assert (len(looks) == 2) == (groups == 1)
            copied.change("full_docs", lambda docs: kept)
            wanted, _ = await examine_source(
                copied.files.reader(), copied.target, copied.streams, 50, meter()
            )
            await catch_up(
                copied.files.reader(), copied.target, mending, patcher, wanted, copied.tables, 50, meter()
            )
    assert (await difference(copied.files.reader(), copied.target)).equal


SPOILT = """
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;
CREATE TRIGGER spoil BEFORE INSERT OR UPDATE OR DELETE ON lightrag_doc_full FOR EACH ROW EXECUTE FUNCTION spoil()
"""


@pytest.mark.parametrize(
    ("edit", "trigger"),
    [
        (
            lambda docs: {**docs, "doc-new": {"content": "new"}},
            "NEW.content := NEW.content || ' '; RETURN NEW;",
        ),
        (lambda docs: {**docs, "doc-new": {"content": "new"}}, "RETURN NULL;"),
        (lambda docs: dict(list(docs.items())[1:]), "RETURN NULL;"),
    ],
    ids=["written otherwise", "not written", "not removed"],
)
async def test_what_the_target_does_not_hold_as_written_is_never_called_done(
    copied: Copied, sql: asyncpg.Connection, edit: Any, trigger: str
) -> None:
    """A trigger of somebody, a rule of the engine: it is read back, told with the stream, and nothing is switched."""
    await sql.execute(SPOILT.format(trigger))
    async with copied.files.reader().snapshot() as moment:
        copied.change("full_docs", edit)
        with pytest.raises(VerificationFailed, match=r"1 records of full_docs are not in the target"):
            await copied.by_what_differs(moment)


@pytest.fixture
def vectors(milvus: MilvusServer, vector_database: str) -> MilvusStore:
    return milvus.backend(vector_database).store("unused", "notes", MILVUS_EMBEDDING)


async def _tables(source: Store, target: Store) -> dict[str, NamespaceDigest]:
    names = streams_of(target.slots)
    tables, _ = await examine_source(source.reader(), target, names, 50, meter())
    return dict(tables)


async def test_milvus_is_brought_up_to_date(vectors: MilvusStore, tmp_path: Path) -> None:
    """By what differs, then by a whole pass that begins with a copy of an old state; all records equal each time."""
    shutil.copytree(EXAMPLE / "archive", tmp_path / "notes")
    files = vectors_of(tmp_path / "notes")
    await move_vectors(files.reader(), vectors)
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
    assert (delta.put, delta.removed) == (3, 1)
    assert apart(await _tables(files, vectors), first) == []
    facts, _ = await vectors.observe()
    assert facts["state"] == "copied", "what was changed is unverified"
    await vectors.mark("db1-a", "verified", "another state")
    facts, _ = await vectors.observe()
    assert (facts["state"], facts["source_fingerprint"]) == ("verified", "another state")
    # Back to the first state, told by the tables alone.
    shutil.rmtree(tmp_path / "notes")
    shutil.copytree(EXAMPLE / "archive", tmp_path / "notes")
    async with mending.open("db1-a") as patcher:
        delta = await catch_up(files.reader(), vectors, mending, patcher, held, first, 50, meter())
    assert (delta.put, delta.removed) == (3, 1)
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


async def test_milvus_gives_a_copy_back_only_to_its_owner(vectors: MilvusStore) -> None:
    files = vectors_of()
    await move_vectors(files.reader(), vectors)
    await vectors.mark("db1-a", "verified")
    await vectors.mark("db1-a", "switched")
    with pytest.raises(PlanRefused, match="taken over"):
        await vectors.mending().reclaim("db2-a")
    with pytest.raises(PlanRefused, match="taken over"):
        async with vectors.mending().open("db1-a"):
            pass  # it serves
    await vectors.mending().reclaim("db1-b")
    facts, _ = await vectors.observe()
    assert (facts["migration"], facts["state"]) == ("db1-b", "copied")
