"""Digests of records and of whole namespaces, independent of order and of engine.

A namespace digest is a table of buckets. A record falls into the bucket of its key and adds its own
128-bit digest to the bucket's sum; so two sides that hold the same records, in any order, have the same
table, the memory is constant, and a difference is narrowed down to the few buckets that differ.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable
from typing import Any

import orjson

from hybridrag.model.data import Batch

BUCKETS = 4096
_MASK = (1 << 128) - 1
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_HUGE = 1 << 1024
"""No double reaches it."""


def canonical(value: Any) -> Any:
    """`value` with numbers in one form: equal numbers look equal, whatever engine spelled them.

    Engines disagree on 1 and 1.0 (JSONB keeps neither apart reliably), so integral floats become ints. An
    integer that fits neither 64 bits nor a double exactly raises ValueError: parsers round it, each in its way.
    """
    kind = type(value)
    if kind is int:
        if not _LEAST <= value <= _MOST and (abs(value) >= _HUGE or int(float(value)) != value):
            raise ValueError("an integer of more than 64 bits")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("NaN or Infinity")
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {key: canonical(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        if set(map(type, value)) <= {str}:
            return value
        return [canonical(item) for item in value]
    return value


def canonical_bytes(fields: dict[str, Any]) -> bytes:
    """Canonical JSON of a record's fields. Raises ValueError for what no JSON can hold."""
    try:
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # orjson stops at 64-bit integers and at lone surrogates; the slow way takes the former.
        text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8")


def record_digest(key: bytes, fields: dict[str, Any], vector: bytes | memoryview = b"") -> bytes:
    """128-bit digest of one record: its key, all its fields, and the float32 bytes of its vector."""
    state = hashlib.blake2b(b"%d:%b%b" % (len(key), key, canonical_bytes(fields)), digest_size=16)
    state.update(vector)
    return state.digest()


def bucket_of(key: bytes) -> int:
    """Bucket (0 … BUCKETS-1) of a record; depends on its key alone."""
    return zlib.crc32(key) & (BUCKETS - 1)


class NamespaceDigest:
    """The bucket table of one namespace: per bucket the number of records and the sum of their digests."""

    __slots__ = ("counts", "records", "sums")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.sums = [0] * BUCKETS
        self.records = 0

    def add(self, batch: Batch) -> None:
        """Add every record of a batch."""
        vectors = batch.vectors
        for index, (name, fields) in enumerate(zip(batch.keys, batch.fields, strict=True)):
            key = name.encode("utf-8")
            vector = b"" if vectors is None else vectors[index].data.cast("B")
            self.add_digest(key, record_digest(key, fields, vector))

    def add_digest(self, key: bytes, digest: bytes) -> None:
        bucket = bucket_of(key)
        self.counts[bucket] += 1
        self.sums[bucket] = (self.sums[bucket] + int.from_bytes(digest, "little")) & _MASK
        self.records += 1

    def take_digest(self, key: bytes, digest: bytes) -> None:
        """Take a record out that was added before."""
        bucket = bucket_of(key)
        self.counts[bucket] -= 1
        self.sums[bucket] = (self.sums[bucket] - int.from_bytes(digest, "little")) & _MASK
        self.records -= 1

    def differing(self, other: NamespaceDigest) -> list[int]:
        """Buckets in which the two sides do not hold the same records."""
        return [
            bucket
            for bucket in range(BUCKETS)
            if self.sums[bucket] != other.sums[bucket] or self.counts[bucket] != other.counts[bucket]
        ]

    @property
    def value(self) -> str:
        """One hex digest for the whole table."""
        state = hashlib.blake2b(digest_size=16)
        for count, total in zip(self.counts, self.sums, strict=True):
            state.update(count.to_bytes(8, "little"))
            state.update(total.to_bytes(16, "little"))
        return state.hexdigest()

    def to_bytes(self) -> bytes:
        """Serialised for the journal; 24 bytes a bucket."""
        return b"".join(
            count.to_bytes(8, "little") + total.to_bytes(16, "little")
            for count, total in zip(self.counts, self.sums, strict=True)
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> NamespaceDigest:
        if len(data) != 24 * BUCKETS:
            raise ValueError("not a bucket table")
        table = cls()
        for bucket in range(BUCKETS):
            start = 24 * bucket
            table.counts[bucket] = int.from_bytes(data[start : start + 8], "little")
            table.sums[bucket] = int.from_bytes(data[start + 8 : start + 24], "little")
        table.records = sum(table.counts)
        return table


def digest_stream(batches: Iterable[Batch]) -> NamespaceDigest:
    """The bucket table of a whole stream."""
    table = NamespaceDigest()
    for batch in batches:
        table.add(batch)
    return table
