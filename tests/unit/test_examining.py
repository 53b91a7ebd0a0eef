"""Bad records of a source: each is found, told with its place and put aside whole, and nothing else is."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridrag.backends.json.store import JsonStore
from hybridrag.migrate import changing
from hybridrag.migrate.changing import NeedsWholePass, look_at
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.data import BadRecord, Batch, Fault
from hybridrag.model.ports import Changes
from tests.conftest import DIM
from tests.contract.test_json_left_out import Streams, edge_key
from tests.support.json_copy import meter, store_of

NAMES = ["full_docs", "nodes", "edges", "chunks"]


def docs(*texts: tuple[str, str]) -> Batch:
    return Batch(
        namespace="full_docs",
        position=len(texts),
        keys=[key for key, _ in texts],
        fields=[{"content": text} for _, text in texts],
    )


def nodes(*names: str) -> Batch:
    fields = [{"entity_id": name, "description": f"{name}{place}"} for place, name in enumerate(names)]
    return Batch(namespace="nodes", position=len(names), keys=list(names), fields=fields)


def edges(*pairs: tuple[str, str]) -> Batch:
    keys = [edge_key(*pair) for pair in pairs]
    fields = [{"weight": float(place)} for place in range(len(pairs))]
    return Batch(namespace="edges", position=len(pairs), keys=keys, fields=fields)


def chunks(*names: str) -> Batch:
    vectors = np.float32([[place + 1] * DIM for place in range(len(names))])
    fields = [{"content": f"{name}{place}"} for place, name in enumerate(names)]
    return Batch(namespace="chunks", position=len(names), keys=list(names), fields=fields, vectors=vectors)


@pytest.fixture
def target(tmp_path: Path) -> JsonStore:
    return store_of(tmp_path / "notes", DIM)


async def tables(target: JsonStore, *batches: Batch) -> dict[str, NamespaceDigest]:
    """What the target would hold of good records alone."""
    source = Streams({batch.namespace: batch for batch in batches})
    found, said = await examine_source(source, target, NAMES, 100, meter())
    assert said.refused_total == 0
    return found


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 100])
async def test_of_records_with_one_key_the_one_stays_that_lightrag_uses(
    target: JsonStore, rows: int, lanes: int
) -> None:
    """The last of a JSON object or a graph, the first of a vector file; the others are put aside whole."""
    source = Streams(
        {
            "full_docs": docs(("a", "old"), ("b", "1"), ("a", "older"), ("c", "2"), ("a", "new")),
            "nodes": nodes("n", "o", "n"),
            "edges": edges(("n", "o"), ("n", "o")),
            "chunks": chunks("u", "v", "u", "w", "u"),
        }
    )
    kept: list[BadRecord] = []
    found, said = await examine_source(source, target, NAMES, rows, meter(), kept.append, lanes=lanes)
    assert {name: sorted(places) for name, places in said.left_out.items() if places} == {
        "full_docs": [1, 3],
        "nodes": [1],
        "edges": [1],
        "chunks": [3, 5],
    }
    assert said.refused_total == 6
    expected = await tables(
        target,
        docs(("b", "1"), ("c", "2"), ("a", "new")),
        nodes("n", "o", "n").only([1, 2]),
        edges(("n", "o"), ("n", "o")).only([1]),
        chunks("u", "v", "u", "w", "u").only([0, 1, 3]),
    )
    assert {name: table.to_bytes() for name, table in found.items()} == {
        name: table.to_bytes() for name, table in expected.items()
    }
    told = {(record.namespace, record.position): record for record in kept}
    assert len(kept) == len(told) == 6
    assert told["full_docs", 3].record["content"] == "older"
    assert told["full_docs", 3].reason == "full_docs holds a record twice: record 5 has this id too"
    assert (told["chunks", 5].key, told["chunks", 5].record["content"]) == ("u", "u4")
    assert told["chunks", 5].vector is not None
    assert told["chunks", 5].vector.tolist() == [5.0] * DIM
    assert told["chunks", 5].reason == "chunks holds a record twice: record 1 has this id too"


@pytest.mark.parametrize("rows", [1, 2, 100])
async def test_an_edge_without_its_node_is_a_bad_record(target: JsonStore, rows: int) -> None:
    """Whichever of its ends is missing, and also where the node is there but is itself left behind."""
    source = Streams(
        {
            "nodes": nodes("a", "b", "bad\x01"),
            "edges": edges(("a", "b"), ("a", "x"), ("a", "bad\x01"), ("0", "b"), ("b", "b")),
        }
    )
    kept: list[BadRecord] = []
    found, said = await examine_source(source, target, NAMES, rows, meter(), kept.append)
    assert {name: sorted(places) for name, places in said.left_out.items() if places} == {
        "nodes": [3],
        "edges": [2, 3, 4],
    }
    reasons = {record.position: record.reason for record in kept if record.namespace == "edges"}
    assert reasons[2] == 'it leads to "x", a node that does not exist there'
    assert reasons[4] == 'it leads to "0", a node that does not exist there'
    good = await tables(
        target, nodes("a", "b"), edges(("a", "b"), *[("a", "b")] * 3, ("b", "b")).only([0, 4])
    )
    assert found["edges"].to_bytes() == good["edges"].to_bytes()


async def test_what_the_source_cannot_give_is_put_aside_as_it_stands_there(target: JsonStore) -> None:
    """A fault of the source has its own words and its own record; the records beside it are none of it."""
    batch = docs(("a", "1"), ("b", "2"), ("c", "3"))
    batch.faults = {1: Fault(reason="not an object", record="2")}
    kept: list[BadRecord] = []
    found, said = await examine_source(
        Streams({"full_docs": batch}), target, ["full_docs"], 2, meter(), kept.append
    )
    assert [(record.position, record.key, record.reason, record.record) for record in kept] == [
        (2, "b", "not an object", "2")
    ]
    assert said.refused == [("full_docs", "b", "not an object (record 2)")]
    good = await tables(target, docs(("a", "1"), ("c", "3")))
    assert found["full_docs"].to_bytes() == good["full_docs"].to_bytes()


async def test_a_double_of_a_bad_record_is_put_aside_once(target: JsonStore) -> None:
    """Each record that is left behind is told once, for one reason."""
    source = Streams({"full_docs": docs(("a", "\ud800"), ("a", "good"), ("b", "1"))})
    kept: list[BadRecord] = []
    found, said = await examine_source(source, target, ["full_docs"], 100, meter(), kept.append)
    assert ([record.position for record in kept], said.refused_total) == ([1], 1)
    good = await tables(target, docs(("a", "good"), ("b", "1")))
    assert found["full_docs"].to_bytes() == good["full_docs"].to_bytes()


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
async def test_a_reader_without_bad_records_counts_on_in_the_source(rows: int) -> None:
    """A checkpoint is a position in the source: reading on from any of them leaves out the same records."""
    whole = docs(*((f"k{number}", str(number)) for number in range(1, 10)))
    source = Streams({"full_docs": whole})
    left_out = LeftOut({"full_docs": array("Q", [9, 1, 4, 5]), "nodes": array("Q")})
    assert (left_out.total, left_out.streams) == (4, {"full_docs": 4})
    assert LeftOut.from_bytes(left_out.to_bytes()).to_bytes() == left_out.to_bytes()
    assert [left_out.before("full_docs", place) for place in (0, 1, 3, 4, 5, 8, 9)] == [0, 1, 1, 2, 3, 3, 4]
    assert left_out.before("nodes", 9) == 0
    reader = left_out.of(source)
    stay = [2, 3, 6, 7, 8]
    for skip in range(10):
        read = [
            (batch.position, batch.keys) async for batch in reader.read("full_docs", skip=skip, rows=rows)
        ]
        assert [key for _, keys in read for key in keys] == [f"k{place}" for place in stay if place > skip]
        for position, keys in read:
            assert keys, "an empty batch"
            assert int(keys[-1][1:]) <= position
            assert left_out.before("full_docs", position) == position - sum(
                place <= position for place in stay
            )
    assert LeftOut({}).of(source) is source


async def test_what_was_written_since_is_not_judged_by_itself_where_a_key_stands_twice_or_too_much_differs(
    target: JsonStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of two records stays only a look at the whole source can tell; nothing is asked of the target."""
    nothing = Streams({})
    twice = Changes(before=nothing, after=Streams({"full_docs": docs(("a", "1"), ("b", "2"), ("a", "3"))}))
    many = Changes(before=Streams({"full_docs": docs(("a", "1"), ("b", "2"), ("c", "3"))}), after=nothing)
    mending: Any = None
    with pytest.raises(NeedsWholePass):
        await look_at(twice, target, mending, ["full_docs"], 2, lossy=False)
    assert (await look_at(many, target, mending, ["full_docs"], 2, lossy=False))["full_docs"].gone == [
        "a", "b", "c",
    ]  # fmt: skip
    monkeypatch.setattr(changing, "MOST", 2)
    with pytest.raises(NeedsWholePass):
        await look_at(many, target, mending, ["full_docs"], 2, lossy=False)
