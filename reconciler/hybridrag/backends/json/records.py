"""Records as LightRAG's files hold them: the form they give back for each, and what they refuse.

JSON keeps every field of a record; GraphML keeps text, numbers and booleans. What LightRAG expects in every record
of a file, and another engine does not give, is added here. Called by the store and by the writer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hybridrag.model.data import (
    BY_NAME,
    EDGE_SEPARATOR,
    OTHER_STORES,
    STORE_SEPARATOR,
    Batch,
    Slot,
    printable,
)
from hybridrag.model.findings import Examination

from .files import namespaces_of
from .graphml import edge_key
from .halves import restored

DEPTH = 250
"""Levels of nested JSON; orjson writes 254."""
RESERVED = frozenset({"__id__", "__created_at__", "__write_seq__", "__vector__", "__metrics__", "vector"})
"""Names in a row of a vector file that are LightRAG's own (`nano_vector_db_impl.py`)."""
ALWAYS: Mapping[str, Mapping[str, Any]] = {
    "full_docs": {"content": "", "file_path": ""},
    "text_chunks": {"content": "", "llm_cache_list": []},
    "llm_response_cache": {"return": "", "chunk_id": None, "original_prompt": "", "queryparam": None},
    "full_entities": {"entity_names": []},
    "full_relations": {"relation_pairs": []},
    "entity_chunks": {"chunk_ids": []},
    "relation_chunks": {"chunk_ids": []},
    "doc_status": {"metadata": {}, "chunks_list": []},
}
"""Fields that LightRAG 1.4.9.8 … 1.5.7 writes into every record, with the value that other engines leave out."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Refused(ValueError):
    """The files cannot hold this value; the message says why, without the value."""


def _number(value: Any, name: str) -> Any:
    if type(value) is float:
        if not math.isfinite(value):
            raise Refused(f"{name} contains NaN or Infinity")
        return value
    if not -(1 << 63) < value < 1 << 63:
        # The streaming parser (yajl) takes no others; a double of the same value is read as itself.
        try:
            if int(double := float(value)) == value:
                return double
        except OverflowError:
            pass
        raise Refused(f"{name} contains an integer of more than 64 bits")
    return value


def _text(value: str, name: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused(f"{name} contains a lone surrogate") from None
    return value


def _json(value: Any, name: str, depth: int = 0) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value, name)
    if kind is int or kind is float:
        return _number(value, name)
    if value is None or kind is bool:
        return value
    if depth >= DEPTH:
        raise Refused(f"it is nested deeper than {DEPTH} levels")
    if kind is list or kind is tuple:
        return [_json(item, name, depth + 1) for item in value]
    if kind is dict:
        return {_text(key, name): _json(item, name, depth + 1) for key, item in value.items()}
    raise Refused(f"{name} is a {kind.__name__}, which JSON does not know")


def _xml(text: str, name: str) -> str:
    if _NOT_XML.search(text):
        raise Refused(f"{name} contains a character that XML cannot hold")
    return text


def _property(value: Any, name: str) -> Any:
    kind = type(value)
    if kind is str:
        return _xml(value, name)
    if kind is bool:
        return value
    if kind is int or kind is float:
        return _number(value, name)
    raise Refused(f"{name} is a {kind.__name__}; GraphML holds text, numbers and booleans")


def _kv(namespace: str, key: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    form = {_text(name, "a name"): _json(value, name) for name, value in fields.items() if name != "_id"}
    for name, value in ALWAYS[namespace].items():
        form.setdefault(name, value)
    return _text(key, "its key"), form


def _other(namespace: str, key: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    store, separator, _ = _text(key, "its key").partition(STORE_SEPARATOR)
    if not separator or namespaces_of(f"kv_store_{store}.json") != [OTHER_STORES]:
        raise Refused(f'no file of another store can be called "kv_store_{printable(store, 60)}.json"')
    return key, {"value": _json(fields.get("value"), "it")}


def _row(namespace: str, key: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return _text(key, "its key"), {
        _text(name, "a name"): _json(value, name) for name, value in fields.items() if name not in RESERVED
    }


def _element(namespace: str, key: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if namespace == "edges":
        ends = key.split(EDGE_SEPARATOR)
        if len(ends) != 2:
            raise Refused("its key does not name two nodes")
        key = edge_key(_xml(ends[0], "its key"), _xml(ends[1], "its key"))
    else:
        _xml(key, "its key")
    form = {
        _xml(name, "a name"): _property(value, name) for name, value in fields.items() if value is not None
    }
    if namespace == "edges" and type(form.get("weight")) is int:
        form["weight"] = float(form["weight"])  # a double in every file of LightRAG's
    return key, form


Form = Callable[[str, str, dict[str, Any]], tuple[str, dict[str, Any]]]
_FORMS: Mapping[Slot, Form] = {
    Slot.KV: _kv,
    Slot.DOC_STATUS: _kv,
    Slot.VECTOR: _row,
    Slot.GRAPH: _element,
}


def _form_of(namespace: str) -> Form:
    return _other if namespace == OTHER_STORES else _FORMS[BY_NAME[namespace].slot]


def examine(batch: Batch, into: Examination, dim: int) -> Batch:
    """See `Store.examine`. `dim` is the number of dimensions that the database's vectors must have."""
    result = writable(batch, into, dim)
    if result.vectors is not None:
        result.vectors = restored(result.vectors)
    return result


def writable(batch: Batch, into: Examination, dim: int) -> Batch:
    """The same, with the vectors as they were given: what the writer makes its two copies of."""
    form = _form_of(batch.namespace)
    result = Batch(namespace=batch.namespace, position=batch.position, size=batch.size)
    reason = _vector_reasons(batch, dim)
    kept: list[int] = []
    for index, (key, fields) in enumerate(zip(batch.keys, batch.fields, strict=True)):
        try:
            if because := reason(index):
                raise Refused(because)
            name, held = form(batch.namespace, key, fields)
        except ValueError as error:
            into.refuse(batch.namespace, printable(key), str(error))
            continue
        if batch.vectors is not None:
            for lost in fields.keys() & RESERVED:
                into.lost[(batch.namespace, lost)] = into.lost.get((batch.namespace, lost), 0) + 1
        kept.append(index)
        result.keys.append(name)
        result.fields.append(held)
    if batch.vectors is not None:
        result.vectors = batch.vectors if len(kept) == len(batch) else batch.vectors[kept]
    return result


def _vector_reasons(batch: Batch, dim: int) -> Callable[[int], str | None]:
    """Why the vector of a record cannot be held, by its index."""
    if batch.vectors is None:
        return lambda index: None
    if (found := batch.vectors.shape[1]) != dim:
        return lambda index: f"its vector has {found:,} dimensions, the database {dim:,}"
    finite = np.asarray(np.isfinite(batch.vectors).all(axis=1))
    return lambda index: None if finite[index] else "its vector contains NaN or Infinity"
