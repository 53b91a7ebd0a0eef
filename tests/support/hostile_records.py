"""Records of every stream for hypothesis: such as Postgres can hold, and such as nobody should write."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from hybridrag.backends.json.graphml import edge_key
from hybridrag.backends.postgres.tables import BTREE_TEXT_BYTES, SEPARATOR, TABLES, Column, Kind
from hybridrag.model.data import BY_NAME, EDGE_SEPARATOR, Batch, Slot
from hybridrag.model.selection import Embedding

EMBEDDING = Embedding(model="hash-emb", dim=5)

_random = random.Random(7)
NOISE = "".join(chr(_random.randrange(0x4E00, 0x9FFF)) for _ in range(3000))
_valid = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
_tricky = st.sampled_from(
    ["", " ", "a ", "'", '"', "\\", "\\\\u0000", "\\u0000", "\\N", "\t\r\n", "\x01\x7f\x85\u2028", "{}", "null",
     "é", "e\u0301", "😀🏳️‍🌈", "\U0010ffff", "\ufeff", "\u202eabc", "%s $1 {0}", "NaN", SEPARATOR, f"a{SEPARATOR}{SEPARATOR}b"]
)  # fmt: skip
good_text = st.one_of(st.text(_valid, max_size=12), _tricky)
_bad_text = st.one_of(
    st.text(max_size=6).map(lambda text: text + "\0"),
    st.sampled_from(["\ud800", "x\udfff", "\0", "x" * 256, "😀" * 513, "x" * 1025, NOISE, NOISE[:900]]),
    st.text(st.characters(), max_size=8),
)
_good_numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e300, 5e-324, 1e16, 2**53 + 1, 2**64 - 1, 10**22, 0.1]),
)
_bad_numbers = st.sampled_from(
    [float("nan"), float("inf"), 2**64 + 1, -(2**63) - 1, 10**400, -(10**30) - 1, 2**31]
)


def _json(leaves: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=8,
    )


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


good_json = _json(st.none() | st.booleans() | _good_numbers | good_text, good_text)
any_json = st.one_of(
    good_json,
    _json(st.none() | _bad_numbers | _bad_text | _good_numbers, _bad_text | good_text),
    st.sampled_from([200, 300, 600, 3000]).map(_nested),
)
anything = any_json | _bad_text | _bad_numbers


def _good(column: Column) -> st.SearchStrategy[Any]:
    limit = column.limit or 10**9
    long = min(limit, BTREE_TEXT_BYTES)
    return {
        Kind.TEXT: good_text.filter(lambda text: len(text) <= limit)
        | st.sampled_from(["x" * long, "é" * (long // 2)]),
        Kind.INT: st.integers(-(2**31), 2**31 - 1) | st.sampled_from([3.0, -0.0]),
        Kind.EPOCH: st.integers(0, 2**36) | st.floats(0, 2**36),
        Kind.ISO: st.datetimes().map(lambda moment: moment.isoformat() + "+00:00")
        | st.sampled_from(["2024-02-29T23:59:59.999999Z", "2024-06-01T00:00:00", "2024-06-01T00:00:00.123456+05:30"]),
        Kind.JSON: good_json,
        Kind.RAW: good_json | st.just({"nul": ["\0"]}),
        Kind.JOINED: st.lists(st.text(_valid, max_size=9), max_size=4).map(SEPARATOR.join)
        | st.just(SEPARATOR.join(["c" * 255] * 300)),
    }[column.kind]  # fmt: skip


_unknown = st.sampled_from(["multimodal_content", "", "id", "workspace", "ключ"])


def _fields(namespace: str, *, good: bool) -> st.SearchStrategy[dict[str, Any]]:
    table = TABLES[namespace]
    if table.graph:
        scalars = st.booleans() | _good_numbers | good_text
        if good:
            return st.dictionaries(good_text | st.just("entity_id"), scalars, max_size=4)
        return st.dictionaries(
            good_text | _bad_text, scalars | _bad_numbers | _bad_text | st.none(), max_size=4
        )
    known = {
        column.field: st.none() | _good(column) if good else st.none() | _good(column) | anything
        for column in table.columns
    }
    return st.builds(
        lambda fields, more: {**more, **fields},
        st.fixed_dictionaries({}, optional=known),
        st.dictionaries(_unknown, good_json if good else anything, max_size=1),
    )


def _keys(namespace: str, *, good: bool) -> st.SearchStrategy[str]:
    limit = TABLES[namespace].key_limit or 600
    one = (good_text | st.sampled_from(["k" * limit, "é" * limit])).filter(
        lambda text: len(text) <= limit and EDGE_SEPARATOR not in text
    )
    if not good:
        one = (one | _bad_text).filter(lambda text: EDGE_SEPARATOR not in text)
    return st.builds(edge_key, one, one) if namespace == "edges" else one


@st.composite
def batches(draw: st.DrawFn, namespace: str, *, good: bool) -> Batch:
    """Up to six records with different keys."""
    keys = draw(st.lists(_keys(namespace, good=good), min_size=1, max_size=6, unique=True))
    fields = [draw(_fields(namespace, good=good)) for _ in keys]
    batch = Batch(namespace=namespace, position=len(keys), keys=keys, fields=fields)
    if BY_NAME[namespace].slot is Slot.VECTOR:
        component = st.floats(width=32, allow_nan=not good, allow_infinity=not good)
        rows = [[draw(component) for _ in range(EMBEDDING.dim)] for _ in keys]
        batch.vectors = np.array(rows, dtype=np.float32)
    return batch
