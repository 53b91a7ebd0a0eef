"""Digests: the order of records does not matter, anything else does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridrag.migrate.digest import (
    BUCKETS,
    NamespaceDigest,
    bucket_of,
    canonical,
    canonical_bytes,
    digest_stream,
)
from hybridrag.model.data import Batch

DIM = 3
_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
_number = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_value = st.recursive(
    st.none() | st.booleans() | _number | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
)
_record = st.tuples(
    st.dictionaries(_text, _value, max_size=3).map(canonical),
    st.lists(st.floats(-2, 2, width=32), min_size=DIM, max_size=DIM),
)
Records = dict[str, tuple[dict[str, Any], list[float]]]
_records: st.SearchStrategy[Records] = st.dictionaries(_text, _record, min_size=1, max_size=6)


def table(records: list[tuple[str, tuple[dict[str, Any], list[float]]]], size: int = 2) -> NamespaceDigest:
    """The digest of some records, read in batches of a size."""

    def batches() -> Any:
        for start in range(0, len(records), size):
            part = records[start : start + size]
            vectors = np.array([vector for _, (_, vector) in part], dtype=np.float32).reshape(len(part), DIM)
            keys, fields = [key for key, _ in part], [fields for _, (fields, _) in part]
            yield Batch(
                namespace="chunks", position=start + len(part), keys=keys, fields=fields, vectors=vectors
            )

    return digest_stream(batches())


@given(records=_records, random=st.randoms(), size=st.integers(1, 7))
def test_the_order_and_the_batches_do_not_matter(records: Records, random: Any, size: int) -> None:
    """Nor does the order of a record's fields."""
    listed = list(records.items())
    one = table(listed)
    random.shuffle(listed)
    turned = [(key, (dict(reversed(list(fields.items()))), vector)) for key, (fields, vector) in listed]
    other = table(turned, size)
    assert (one.value, one.differing(other), one.records) == (other.value, [], len(records))


def _field(draw: Any, records: Records, key: str) -> None:
    fields = records[key][0]
    name = draw(st.sampled_from(sorted(fields)) if fields else _text)
    new = canonical(draw(_value))
    assume(canonical_bytes({"": fields.get(name, "absent")}) != canonical_bytes({"": new}))
    fields[name] = new


def _lost_field(draw: Any, records: Records, key: str) -> None:
    fields = records[key][0]
    assume(fields)
    del fields[draw(st.sampled_from(sorted(fields)))]


def _vector(draw: Any, records: Records, key: str) -> None:
    vector = records[key][1]
    at = draw(st.integers(0, DIM - 1))
    vector[at] = float(np.nextafter(np.float32(vector[at]), np.float32(9)))


def _renamed(draw: Any, records: Records, key: str) -> None:
    new = draw(_text)
    assume(new not in records)
    records[new] = records.pop(key)


def _missing(draw: Any, records: Records, key: str) -> None:
    del records[key]


def _extra(draw: Any, records: Records, key: str) -> None:
    new = draw(_text)
    assume(new not in records)
    records[new] = copy.deepcopy(records[key])


def _swapped(draw: Any, records: Records, key: str) -> None:
    other = draw(st.sampled_from(sorted(records)))
    mine, theirs = (canonical_bytes(records[name][0]) for name in (key, other))
    assume(mine != theirs or records[key][1] != records[other][1])
    records[key], records[other] = records[other], records[key]


CHANGES = [_field, _lost_field, _vector, _renamed, _missing, _extra, _swapped]


@pytest.mark.parametrize("change", CHANGES)
@given(data=st.data())
def test_any_single_change_is_seen_in_the_bucket_of_its_key(
    change: Callable[[Any, Records, str], None], data: st.DataObject
) -> None:
    """A field, a vector component by one step, a key, a record more or less, two records swapped."""
    before: Records = data.draw(_records)
    after = copy.deepcopy(before)
    change(data.draw, after, data.draw(st.sampled_from(sorted(after))))
    one, other = table(list(before.items())), table(list(after.items()))
    assert one.value != other.value
    touched = {
        bucket_of(key.encode())
        for key in before.keys() | after.keys()
        if repr(before.get(key)) != repr(after.get(key))
    }
    assert set(one.differing(other)) == touched == set(other.differing(one))


def test_two_records_of_one_bucket_that_changed_places_are_seen() -> None:
    """A record's digest covers its key, so that a bucket is more than a set of contents."""
    by_bucket: dict[int, str] = {}
    one, other = next(
        (found, key)
        for key in map(str, range(10_000))
        if (found := by_bucket.setdefault(bucket_of(key.encode()), key)) != key
    )
    mine, theirs = ({"a": 1}, [1.0] * DIM), ({"a": 2}, [2.0] * DIM)
    before, after = table([(one, mine), (other, theirs)]), table([(one, theirs), (other, mine)])
    assert before.differing(after) == [bucket_of(one.encode())]


@given(records=_records)
def test_a_table_survives_the_journal(records: Records) -> None:
    """Serialised, it has one size whatever it holds; anything else is refused."""
    one = table(list(records.items()))
    data = one.to_bytes()
    again = NamespaceDigest.from_bytes(data)
    assert (again.value, again.records, again.to_bytes()) == (one.value, one.records, data)
    assert len(data) == 24 * BUCKETS
    with pytest.raises(ValueError, match="bucket table"):
        NamespaceDigest.from_bytes(data[:-1])


@given(_value)
def test_the_canonical_form_says_the_same_in_one_way(value: Any) -> None:
    """Equal numbers become the same text; doing it twice, or through JSON as another engine spells it, changes nothing."""
    form = canonical(value)
    assert form == value or value != value
    text = canonical_bytes({"": form})
    assert canonical_bytes({"": canonical(form)}) == text
    assert canonical_bytes(canonical(json.loads(json.dumps({"": value})))) == text
    as_floats = json.loads(
        text, parse_int=lambda digits: float(digits) if abs(int(digits)) < 2**53 else int(digits)
    )
    assert canonical_bytes(canonical(as_floats)) == text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (0.0, -0.0, True),
        (1e22, 10**22, True),
        (2**53 + 1, float(2**53), False),
        (1, True, False),
        (0, False, False),
        (1, "1", False),
        (None, "", False),
        ([], {}, False),
        ([[1.0], "a"], [[1], "a"], True),
        ("é", "e\u0301", False),
    ],
)
def test_what_counts_as_equal(one: Any, other: Any, same: bool) -> None:
    """Numbers by value; nothing else is blurred, truth values and Unicode forms included."""
    assert (canonical_bytes({"": canonical(one)}) == canonical_bytes({"": canonical(other)})) == same


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 2**64 + 1, -(2**63) - 1, 10**400])
def test_what_no_engine_returns_exactly_has_no_form(value: Any) -> None:
    """Refused rather than rounded, at any depth."""
    for nested in (value, [value], {"a": [1, {"b": value}]}):
        with pytest.raises(ValueError, match=r"NaN|64 bits"):
            canonical(nested)
