"""What a search for neighbours says of a target whose vectors are not the source's, on real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hybridrag.migrate.neighbours import LISTED, Parity, Sample, compare_neighbours
from hybridrag.model.data import Batch, Fault
from tests.contract.test_json_left_out import Streams
from tests.support.json_copy import migrate, publish, store_of

DIM = 8
COUNT = 40


def chunks(vectors: np.ndarray, names: list[str] | None = None) -> Batch:
    keys = names or [f"c{number}" for number in range(len(vectors))]
    fields = [{"content": key} for key in keys]
    return Batch(
        namespace="chunks", position=len(keys), keys=keys, fields=fields, vectors=np.float32(vectors)
    )


def some() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(COUNT, DIM))


async def parity(folder: Path, source: Batch, held: Batch, rows: int = 7) -> Parity:
    """Of files that hold one thing, beside a source that holds another."""
    target = store_of(folder, DIM)
    await migrate(Streams({"chunks": held}), target, rows=10)
    await publish(target)
    sample = Sample()
    sample.add(source)
    found = await compare_neighbours(Streams({"chunks": source}), target, sample, rows)
    assert found is not None
    return found


@pytest.mark.parametrize("count", [1, 5, 10, 11, COUNT])
async def test_the_same_vectors_agree(tmp_path: Path, count: int) -> None:
    """However few there are; each of the sample is asked for once."""
    same = chunks(some()[:count])
    found = await parity(tmp_path, same, same)
    assert (found.queries, found.agreed, found.apart, found.listed) == (min(10, count), min(10, count), 0, [])
    assert found.worst <= found.tolerance


async def test_two_vectors_that_changed_places_are_named(tmp_path: Path) -> None:
    """All numbers are there, under another key."""
    vectors = some()
    swapped = vectors.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    found = await parity(tmp_path, chunks(vectors), chunks(swapped))
    assert found.apart > 0
    assert len(found.listed) == min(found.apart, LISTED)
    assert all(line.startswith('chunks near "c') for line in found.listed)
    assert any(" with " in line and " is expected there" in line for line in found.listed)
    assert str(found).startswith(f"{10 - found.apart} of 10 searches find the 10 nearest")


async def test_too_few_answers_are_no_agreement(tmp_path: Path) -> None:
    """A target that holds less than the source has nothing to be right about."""
    vectors = some()
    found = await parity(tmp_path, chunks(vectors), chunks(vectors[:4]))
    assert (found.agreed, found.apart) == (0, 10)
    assert found.listed[0].endswith("4 found, 10 are there")
    assert len(found.listed) == LISTED


async def test_equally_near_ones_may_change_places(tmp_path: Path) -> None:
    """Which of many equal vectors is found is nobody's fault."""
    vectors = some()
    vectors[5:] = vectors[5]
    names = [f"c{number}" for number in range(COUNT)]
    order = np.r_[0:5, COUNT - 1 : 4 : -1]
    held = chunks(vectors[order], [names[place] for place in order])
    found = await parity(tmp_path, chunks(vectors), held)
    assert (found.queries, found.agreed) == (10, 10)


def test_a_sample_is_the_same_whatever_the_batches() -> None:
    """Evenly drawn by key; nothing is near to zero, to what is no number, or to what is no record."""
    vectors = some()
    vectors[3] = 0
    vectors[4, 2] = np.inf
    whole = chunks(vectors)
    whole.faults = {5: Fault(reason="no vector", record=None)}
    drawn = Sample(COUNT)
    drawn.add(whole)
    keys, rows = drawn.of("chunks")
    assert sorted(keys) == sorted(set(whole.keys) - {"c3", "c4", "c5"})
    assert all((row == whole.vectors[int(key[1:])]).all() for key, row in zip(keys, rows, strict=True))  # type: ignore[index]
    one, other = Sample(6), Sample(6)
    one.add(whole)
    for start in range(COUNT - 3, -1, -3):
        other.add(whole.only(range(start, start + 3)))
    other.add(whole.only([COUNT - 1]))
    assert one.of("chunks")[0] == other.of("chunks")[0] == keys[:6]
    assert one.of("entities")[0] == []
    assert list(one.streams) == ["chunks"]


def test_the_searches_of_several_streams_add_up() -> None:
    """The worst deviation and the widest tolerance are those of the whole."""
    whole = Parity(queries=10, agreed=10, worst=0.1, tolerance=0.2)
    whole.add(Parity(queries=5, agreed=3, worst=0.05, tolerance=0.3, listed=list("abcdefg")))
    assert (whole.queries, whole.agreed, whole.apart, whole.worst, whole.tolerance) == (15, 13, 2, 0.1, 0.3)
    assert whole.listed == list("abcde")
