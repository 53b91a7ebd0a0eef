"""Comparing two sets of files: what is counted is exact or said not to be, and reports of parts add up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hybridrag.backends.json.store import JsonStore
from hybridrag.migrate import verifying
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.references import References, compare_references
from hybridrag.migrate.verifying import Difference, Report, StreamReport, compare, digest_targets
from hybridrag.migrate.watching import Watched
from hybridrag.model.data import NAMESPACES, Batch
from hybridrag.model.findings import Examination
from tests.conftest import DIM, EXAMPLE
from tests.contract.test_json_left_out import Streams
from tests.support.json_copy import meter, store_of

NAMES = [namespace.name for namespace in NAMESPACES]


def docs(**texts: str) -> Batch:
    fields = [{"content": text} for text in texts.values()]
    return Batch(namespace="full_docs", position=len(texts), keys=list(texts), fields=fields)


@pytest.fixture
def target(tmp_path: Path) -> JsonStore:
    return store_of(tmp_path / "notes", DIM)


async def found(target: JsonStore, wanted: Batch, present: Batch, rows: int = 3) -> Report:
    """What a comparison says of one stream as it is wanted and as it is read back."""
    held = target.examine(present, Examination())
    source, written = Streams({wanted.namespace: wanted}), Streams({present.namespace: held})
    expected, _ = await examine_source(source, target, [wanted.namespace], rows, meter())
    return await compare(source, target, written, expected, rows, meter())


def some(count: int, text: str = "x") -> dict[str, str]:
    return {f"k{number:03}": f"{text}{number}" for number in range(count)}


async def test_every_record_that_differs_is_counted_and_some_are_named(target: JsonStore) -> None:
    """Of each kind, by stream; those that differ are named with their fields, as far as there is room."""
    wanted = some(60)
    present = {**{key: text for key, text in wanted.items() if key >= "k007"}, "extra": "y"}
    for number in range(20, 45):
        present[f"k{number:03}"] = "changed"
    report = await found(target, docs(**wanted), docs(**present))
    assert (report.missing, report.extra, report.different, report.truncated) == (7, 1, 25, False)
    assert report.streams == {"full_docs": StreamReport(records=60, missing=7, extra=1, different=25)}
    assert report.records == 60
    assert not report.equal
    assert len(report.listed) == 20
    kinds = [difference.kind for difference in report.listed]
    assert (kinds.count("missing"), kinds.count("extra"), kinds.count("different")) == (7, 1, 12)
    assert all(item.fields == ("content",) for item in report.listed if item.kind == "different")
    assert {item.key for item in report.listed if item.kind == "missing"} == {f"k00{n}" for n in range(7)}


async def test_a_record_that_came_twice_is_seen(target: JsonStore) -> None:
    """With the same content: a stream in which nothing is wrong but the number."""
    twice = docs(**some(5))
    twice.keys[4], twice.fields[4] = twice.keys[3], twice.fields[3]
    report = await found(target, docs(**some(4)), twice)
    assert (report.equal, report.missing, report.extra, report.different) == (False, 0, 0, 1)


async def test_what_is_too_much_to_hold_is_said_to_be_cut_off(
    target: JsonStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of it is looked at whatever the limit; the counts are then not called exact, and never zero."""
    monkeypatch.setattr(verifying, "HELD", 10)
    report = await found(target, docs(**some(200)), docs())
    assert report.truncated
    assert not report.equal
    assert 1 <= report.missing <= 10
    monkeypatch.setattr(verifying, "HELD", 0)
    report = await found(target, docs(**some(200)), docs())
    assert (report.truncated, report.missing >= 1) == (True, True)
    monkeypatch.setattr(verifying, "HELD", 200)
    report = await found(target, docs(**some(200)), docs())
    assert (report.truncated, report.missing) == (False, 200)


async def test_streams_that_are_known_are_not_read_again(target: JsonStore) -> None:
    """Those that are read are kept, each when it is whole."""
    kept: dict[str, NamespaceDigest] = {}
    read: list[str] = []

    class Reading(Streams):
        async def read(self, namespace: str, **more: Any) -> AsyncIterator[Batch]:
            read.append(namespace)
            async for batch in super().read(namespace, **more):
                yield batch

    class Kept(verifying.Held):
        def get(self, namespace: str) -> NamespaceDigest | None:
            return kept.get(namespace)

        def put(self, namespace: str, table: NamespaceDigest) -> None:
            kept[namespace] = table

    reader = Reading({"full_docs": docs(a="1", b="2")})
    first = await digest_targets(reader, ["full_docs", "nodes"], 1, meter(), held=Kept())
    again = await digest_targets(reader, ["full_docs", "nodes"], 1, meter(), lanes=2, held=Kept())
    assert sorted(read) == ["full_docs", "nodes"]
    assert first == again == kept
    assert (first["full_docs"].records, first["nodes"].records) == (2, 0)


def test_reports_of_parts_add_up() -> None:
    """A fault in any part is a fault of the whole; of the differences as many are named as of one."""
    whole, part = Report(records=1, rules=2), Report(records=10, missing=1, extra=2, different=3, rules=4)
    part.listed = [Difference(namespace="nodes", key=str(number), kind="extra") for number in range(15)]
    part.streams = {"nodes": StreamReport(records=10, missing=1, extra=2, different=3)}
    part.truncated = True
    assert whole.equal
    whole.add(part)
    assert not whole.equal
    whole.add(part)
    assert (whole.records, whole.missing, whole.extra, whole.different) == (21, 2, 4, 6)
    assert (whole.rules, whole.truncated, len(whole.listed)) == (10, True, 20)
    assert list(whole.streams) == ["nodes"]
    assert str(whole.listed[0]) == "nodes '0': extra"
    broken = Report(broken_rules=["an index is missing"])
    assert not broken.equal
    whole = Report()
    whole.add(broken)
    assert not whole.equal


# --- what records say of one another ---


async def gathered(streams: dict[str, Batch]) -> References:
    references = References()
    reader = Watched(Streams(streams), references)
    for name in NAMES:
        async for _ in reader.read(name, rows=2):
            pass
        async for _ in reader.read(name, rows=2):  # looked at once more: shown once
            pass
    return references


async def example_streams() -> dict[str, Batch]:
    """The example's records, whole streams."""
    whole: dict[str, Batch] = {}
    reader = store_of(EXAMPLE / "archive", DIM).reader()
    for name in NAMES:
        async for batch in reader.read(name, rows=10_000):
            whole[name] = batch
    return whole


async def broken(before: dict[str, Batch], after: dict[str, Batch], *streams: str) -> dict[str, str]:
    reader = Streams(after)
    told = await compare_references(
        await gathered(before),
        await gathered(after),
        streams or NAMES,
        lambda name: reader.read(name, rows=3),
    )
    return {each.rule.name: str(each) for each in told}


async def test_only_what_the_source_keeps_counts_against_the_target() -> None:
    """A document gone from both sides is told, but stops nothing; one gone from the target alone is wrong."""
    whole = await example_streams()
    assert await broken(whole, whole) == {}
    docs = whole["full_docs"]
    one, two = ({**whole, "full_docs": docs.only(range(count, len(docs)))} for count in (1, 2))
    assert len(docs) > 2
    same = await broken(one, one)
    assert set(same) == {
        "text_chunks.full_doc_id in full_docs",
        "full_entities.id in full_docs",
        "full_relations.id in full_docs",
        "chunks.full_doc_id in full_docs",
    }
    for told in same.values():
        assert told.startswith("1 ")
        assert ", as in the source: " in told
    worse = await broken(one, two)
    assert set(worse) == set(same)
    for name, told in worse.items():
        assert told.startswith("1 documents")
        assert "(1 more absent in the source, too)" in told, name
        listed = told.partition("too): ")[2]
        assert listed.index(docs.keys[1]) < listed.index(docs.keys[0]), "what is new stands first"
    assert await broken(one, two, "full_docs", "doc_status") == {}
    assert set(await broken(one, two, "full_docs", "chunks")) == {"chunks.full_doc_id in full_docs"}


async def test_an_edge_and_its_vector_name_a_pair_in_either_order() -> None:
    """LightRAG keeps them both ways; what it writes where a chunk's id is missing is no name."""
    edge = Batch(namespace="edges", position=1, keys=["b\x1fa"], fields=[{"source_id": "UNKNOWN<SEP>c1"}])
    vector = Batch(
        namespace="relationships",
        position=1,
        keys=["r"],
        fields=[{"src_id": "a", "tgt_id": "b", "source_id": ""}],
    )
    chunk = Batch(namespace="text_chunks", position=1, keys=["c1"], fields=[{}])
    node = Batch(
        namespace="nodes", position=2, keys=["a", "b"], fields=[{"source_id": "manual_creation"}, {}]
    )
    streams = {batch.namespace: batch for batch in (edge, vector, chunk, node)}
    asked = ("edges", "relationships", "text_chunks", "nodes")
    assert await broken({}, streams, *asked) == {}
    other = {**streams, "relationships": Batch(namespace="relationships", position=1, keys=["r"],
                                               fields=[{"src_id": "a", "tgt_id": "z"}])}  # fmt: skip
    told = await broken({}, other, *asked)
    assert told == {
        "edges.pair in relationships": '1 edges have no relation vector: "a ~ b"',
        "relationships.pair in edges": '1 relation vectors have no edge: "a ~ z"',
    }


async def test_of_many_missing_names_each_is_counted_and_five_are_named() -> None:
    """Each name once, however many records name it; a stream that is read anew is forgotten first."""
    fields = [{"full_doc_id": f"d{number // 2}"} for number in range(20)]
    chunks = Batch(namespace="chunks", position=20, keys=[f"c{n}" for n in range(20)], fields=fields)
    told = await broken({}, {"chunks": chunks}, "chunks", "full_docs")
    (words,) = told.values()
    assert words.startswith("10 documents that chunk vectors name do not exist: ")
    assert words.count("chunks") == 5
    references = References()
    references.add(chunks)
    references.forget("chunks")
    assert not any(len(missed) for missed in references.broken(["chunks", "full_docs"]).values())


def test_a_name_is_found_again_whatever_the_order_in_which_it_was_read() -> None:
    """Hashes are merged now and then while a stream is read, far beyond one batch."""
    references = References()
    for start in range(0, 200_000, 10_000):
        keys = [f"d{number}" for number in range(start, start + 10_000)]
        references.add(Batch(namespace="full_docs", position=0, keys=keys, fields=[{}] * len(keys)))
    status = [f"d{number}" for number in range(199_999, -1, -2)]
    references.add(Batch(namespace="doc_status", position=0, keys=status, fields=[{}] * len(status)))
    (missed,) = (
        names
        for rule, names in references.broken(["full_docs", "doc_status"]).items()
        if rule.stream == "full_docs"
    )
    assert len(missed) == 100_000
