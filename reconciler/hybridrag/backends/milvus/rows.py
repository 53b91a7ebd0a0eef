"""Records as Milvus holds them: the form it would give back for each, and what it refuses.

Pure functions; no connection. Vectors stay as they are: whatever the metric, a server keeps the original float32
beside its index.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hybridrag.model.data import Batch, printable
from hybridrag.model.findings import Examination

from .collections import KEY_BYTES, LIMITS, TIME

ROW_BYTES = 512
"""What a row takes on the wire beside its texts and its vector, generously."""


class Refused(ValueError):
    """Milvus cannot hold this value; the message says why, without the value."""


def _sized(text: str, name: str, limit: int) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Refused(f"{name} contains a lone surrogate") from None
    if size > limit:
        raise Refused(f"{name} has {size:,} bytes, Milvus takes {limit:,}")
    return text


def _key(key: str) -> None:
    _sized(key, "its key", KEY_BYTES)
    if not key:
        raise Refused("its key is empty, and LightRAG's own iteration leaves such a record out")
    if any(char < " " or char == "\x7f" for char in key):
        raise Refused("its key contains a control character")


def _seconds(value: Any) -> int:
    if type(value) not in (int, float) or not math.isfinite(value) or not -(2.0**62) < value < 2.0**62:
        raise Refused(f"{TIME} is not a time in seconds")
    return value if type(value) is int else math.floor(value + 0.5)


class Shape:
    """How one namespace's records look in Milvus."""

    def __init__(self, namespace: str) -> None:
        self.limits = LIMITS[namespace]
        self._known = {*self.limits, TIME}

    def form(self, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The record as Milvus gives it back: known fields; absent and null ones left out, and a time of 0 too.

        The collection's time cannot be null: 0 stands for an unknown one.
        """
        _key(key)
        form: dict[str, Any] = {}
        for name, limit in self.limits.items():
            value = fields.get(name)
            if value is None:
                continue
            if type(value) is not str:
                raise Refused(f"{name} is not text")
            form[name] = _sized(value, name, limit)
        if (seconds := fields.get(TIME)) is not None and (whole := _seconds(seconds)):
            form[TIME] = whole
        return form

    def examine(self, batch: Batch, into: Examination) -> Batch:
        """See `Store.examine`."""
        assert batch.vectors is not None  # noqa: S101 - vector namespaces have vectors
        result = Batch(namespace=batch.namespace, position=batch.position, size=batch.size)
        finite: list[bool] = np.asarray(np.isfinite(batch.vectors).all(axis=1)).tolist()
        kept: list[int] = []
        for index, (key, fields) in enumerate(zip(batch.keys, batch.fields, strict=True)):
            try:
                if not finite[index]:
                    raise Refused("its vector contains NaN or Infinity")
                form = self.form(key, fields)
            except Refused as error:
                into.refuse(batch.namespace, printable(key), str(error))
                continue
            for name in fields.keys() - self._known:
                if fields[name] is not None:
                    into.lost[(batch.namespace, name)] = into.lost.get((batch.namespace, name), 0) + 1
            kept.append(index)
            result.keys.append(key)
            result.fields.append(form)
        result.vectors = batch.vectors if len(kept) == len(batch) else batch.vectors[kept]
        return result

    def requests(self, batch: Batch, limit: int) -> list[list[dict[str, Any]]]:
        """The rows of a batch for the client, in groups below `limit` bytes. Raises Refused."""
        assert batch.vectors is not None  # noqa: S101 - vector namespaces have vectors
        groups: list[list[dict[str, Any]]] = []
        room = 0
        # Lists of floats: the client takes them twice as fast as arrays, and a float32 survives the way unchanged.
        for key, fields, vector in zip(batch.keys, batch.fields, batch.vectors.tolist(), strict=True):
            form = self.form(key, fields)
            row: dict[str, Any] = dict.fromkeys(self.limits)
            row |= {"id": key, "vector": vector, TIME: 0} | form
            size = ROW_BYTES + 4 * len(vector) + sum(4 * len(form.get(name, "")) for name in self.limits)
            if size > room:
                groups.append([])
                room = limit
            groups[-1].append(row)
            room -= size
        return groups


def batch_of(namespace: str, rows: list[dict[str, Any]], position: int) -> Batch:
    """Rows as the server gave them; fields that LightRAG once kept beside the schema are found there as well."""
    batch = Batch(namespace=namespace, position=position)
    batch.vectors = np.array([row["vector"] for row in rows], dtype=np.float32)
    batch.size = batch.vectors.nbytes
    for row in rows:
        batch.keys.append(row["id"])
        batch.fields.append(
            {
                name: value
                for name, value in row.items()
                if name not in ("id", "vector") and value is not None and not (name == TIME and value == 0)
            }
        )
        batch.size += sum(len(value) for value in row.values() if type(value) is str)
    return batch
