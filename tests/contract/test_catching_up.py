"""A finished copy is brought up to a later state: by what differs alone, or by a whole pass; never by half."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.errors import VerificationFailed
from hybridrag.migrate import catching_up
from hybridrag.migrate.catching_up import Delta, apart, catch_up
from hybridrag.migrate.changing import NeedsWholePass, carry, look_at
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.model.data import Batch, streams_of
from hybridrag.model.ports import Moment, Reader
from tests.conftest import EXAMPLE, Server
from tests.support.stores import EMBEDDING, difference, meter, move, store


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
