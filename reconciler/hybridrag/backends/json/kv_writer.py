"""Records as text of a `kv_store_*.json`, byte for byte as LightRAG's `write_json` makes it (`lightrag/utils.py`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import orjson

from hybridrag.model.data import STORE_SEPARATOR, Batch


def kv_text(batch: Batch, *, first: bool) -> Iterator[bytes]:
    """The records of an examined batch; the first of a file opens its object, every other follows a comma."""
    before = b"{" if first else b","
    for key, fields in zip(batch.keys, batch.fields, strict=True):
        record = fields if batch.namespace == "doc_status" else {**fields, "_id": key}
        yield before + _indented({key: record})
        before = b","


def other_texts(batch: Batch, begun: Collection[str]) -> dict[str, bytes]:
    """By name of its file, the records of each store in a batch of `OTHER_STORES`. `begun`: files that hold some already."""
    found: dict[str, list[bytes]] = {}
    for name, fields in zip(batch.keys, batch.fields, strict=True):
        store, _, key = name.partition(STORE_SEPARATOR)
        file = f"kv_store_{store}.json"
        before = b"," if file in begun or file in found else b"{"
        found.setdefault(file, []).append(before + _indented({key: fields["value"]}))
    return {file: b"".join(texts) for file, texts in found.items()}


def kv_end(records: int) -> bytes:
    """What closes a file of that many records."""
    return b"\n}" if records else b"{}"


def _indented(value: dict[str, Any]) -> bytes:
    """The inside of an object, without its braces."""
    if _plain(value):
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)[1:-2]
    return json.dumps(value, indent=2, ensure_ascii=False).encode()[1:-2]


def _plain(value: Any) -> bool:
    """Whether orjson writes it as Python does: they spell some floats differently (1e16, 1e+16)."""
    kind = type(value)
    if kind is dict:
        return all(map(_plain, value.values()))
    if kind is list:
        return set(map(type, value)) <= {str} or all(map(_plain, value))
    return kind is not float
