"""What a vector's record may hold: Milvus gives back exactly what `examine` said, or `examine` refused it with a reason."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridrag.backends.milvus.collections import KEY_BYTES, LIMITS, VECTORS, collection_name
from hybridrag.model.data import Batch
from hybridrag.model.findings import Examination
from hybridrag.model.selection import Embedding
from tests.support.milvus import MilvusServer
from tests.support.milvus_stores import FIRST, flat

_valid = st.characters(exclude_categories=("Cs",))
_tricky = st.sampled_from(
    ["", "\0", 'a"b', "a\\", "'; drop", "%_like", "𝕏😀\u202e", "\U0010ffff", "e\u0301", "<SEP>"]
)
_text = st.one_of(_tricky, st.text(_valid, max_size=40))
_keys = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=16).filter(
        lambda key: len(key.encode()) <= KEY_BYTES
    ),
    st.sampled_from(["x" * KEY_BYTES, 'a"', "a\\", 'a\\"', "'", "a%", "\U0010ffff", "ent-0", "é" * 32]),
)
_times = st.one_of(st.none(), st.integers(-(2**61), 2**61), st.floats(0, 2e9))
_numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALL = Embedding(model="hash-emb", dim=4)


def _fields(namespace: str) -> st.SearchStrategy[dict[str, Any]]:
    known = {name: st.one_of(st.none(), _text) for name in LIMITS[namespace]}
    full = {
        name: st.just("é" * (limit // 2) + "x" * (limit % 2)) for name, limit in LIMITS[namespace].items()
    }
    return st.one_of(
        st.fixed_dictionaries({}, optional={**known, "created_at": _times}),
        st.fixed_dictionaries({}, optional={**full, "created_at": _times}),
    )


@pytest.fixture(scope="module")
def small(milvus: MilvusServer) -> Any:
    """LightRAG's schema at four dimensions, made once."""
    milvus.client("default").create_database("hostile")
    store = milvus.backend("hostile").store("unused", "trip", SMALL)

    async def prepare() -> None:
        async with store.open_writer(FIRST, "fingerprint") as writer:
            await writer.prepare()

    asyncio.run(prepare())
    return store, milvus.client("hostile")


@pytest.mark.parametrize("namespace", VECTORS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                                          HealthCheck.function_scoped_fixture]
)  # fmt: skip
@given(data=st.data())
def test_hostile_records_come_back_as_examined(namespace: str, small: Any, data: st.DataObject) -> None:
    """Unicode of all planes, quotes, NUL, empty and longest texts, odd floats: to the bit what `examine` said."""
    store, client = small
    keys = data.draw(st.lists(_keys, min_size=1, max_size=6, unique=True))
    batch = Batch(namespace=namespace, position=len(keys), keys=keys)
    batch.fields = [data.draw(_fields(namespace)) for _ in keys]
    vectors = data.draw(
        st.lists(st.lists(_numbers, min_size=4, max_size=4), min_size=len(keys), max_size=len(keys))
    )
    batch.vectors = np.array(vectors, dtype=np.float32)
    examination = Examination()
    wanted = store.examine(batch, examination)
    assert not examination.refused

    async def trip() -> list[tuple[str, bytes, bytes]]:
        async with store.open_writer(FIRST, "fingerprint") as writer:
            await writer.prepare()
            await writer.write(writer.encode(batch))
        return [item async for found in store.reader().read(namespace, rows=2) for item in flat(found)]

    try:
        assert asyncio.run(trip()) == sorted(flat(wanted))
    finally:
        client.delete(collection_name(namespace, "trip", SMALL), filter='id != ""')


def test_what_milvus_cannot_hold_is_named_and_never_cut(small: Any) -> None:
    """One byte too many, a key of nothing, lone surrogates, NaN: refused by name; fields without a place are counted."""
    store, _ = small
    rows: list[tuple[str, dict[str, Any], float]] = [
        ("ok", {"content": "x" * 65535, "tokens": 3, "nothing": None}, 1.0),
        ("content", {"content": "é" * 32768}, 1.0),
        ("name", {"entity_name": "n" * 513}, 1.0),
        ("type", {"file_path": 7}, 1.0),
        ("surrogate", {"content": "\ud800"}, 1.0),
        ("time", {"created_at": "yesterday"}, 1.0),
        ("é" * 33, {}, 1.0),
        ("", {}, 1.0),
        ("line\nbreak", {}, 1.0),
        ("nan", {}, float("nan")),
    ]
    batch = Batch(namespace="entities", position=len(rows), keys=[row[0] for row in rows])
    batch.fields = [row[1] for row in rows]
    batch.vectors = np.array([[row[2]] * 4 for row in rows], dtype=np.float32)
    examination = Examination()
    kept = store.examine(batch, examination)
    assert kept.keys == ["ok"]
    assert len(kept.fields[0]["content"]) == 65535
    assert examination.lost == {("entities", "tokens"): 1}
    assert [(key, reason) for _, key, reason in examination.refused] == [
        ("content", "content has 65,536 bytes, Milvus takes 65,535"),
        ("name", "entity_name has 513 bytes, Milvus takes 512"),
        ("type", "file_path is not text"),
        ("surrogate", "content contains a lone surrogate"),
        ("time", "created_at is not a time in seconds"),
        ("é" * 33, "its key has 66 bytes, Milvus takes 64"),
        ("", "its key is empty, and LightRAG's own iteration leaves such a record out"),
        ("line\\nbreak", "its key contains a control character"),
        ("nan", "its vector contains NaN or Infinity"),
    ]
