"""Records <-> rows: what Postgres would give back for a record, what it refuses, and rows in COPY BINARY.

Pure functions over `tables.py`; no connection. The binary forms are PostgreSQL's own (`COPY … BINARY`,
`*_recv` functions) and pgvector's (`vector_recv`).
"""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson

from hybridrag.migrate.digest import canonical
from hybridrag.model.data import EDGE_SEPARATOR, Batch
from hybridrag.model.ports import Examination

from .tables import BTREE_BYTES, GRAPH_NAMESPACE, SEPARATOR, TABLES, Column, Kind, Table

COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
COPY_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_LENGTH = struct.Struct(">i")
_VARCHAR_OID = 1043
_EPOCH_2000 = 946_684_800
_UTC = dt.timezone.utc
_Y2000 = dt.datetime(2000, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)


class Refused(ValueError):
    """Postgres cannot hold this value; the message says why, without the value."""


def _text(value: Any, column: Column) -> str:
    if type(value) is not str:
        raise Refused(f"{column.field} is not text")
    if "\x00" in value:
        raise Refused(f"{column.field} contains a NUL character")
    if column.limit is not None and len(value) > column.limit:
        raise Refused(f"{column.field} has {len(value):,} characters, {column.name} takes {column.limit}")
    return value


def _int(value: Any, column: Column) -> int:
    number = canonical(value)
    if type(number) is not int or not -(2**31) <= number < 2**31:
        raise Refused(f"{column.field} is not a 32-bit integer")
    return int(number)


def _epoch(value: Any, column: Column) -> int:
    if type(value) not in (int, float) or not 0 <= value < 2**37:
        raise Refused(f"{column.field} is not a time in seconds")
    return math.floor(float(value) + 0.5)  # as TIMESTAMP(0) rounds


def _iso(value: Any, column: Column) -> str:
    try:
        # Python 3.10 does not read the "Z" that newer ones do.
        moment = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=_UTC)  # LightRAG reads naive times as UTC
        return moment.astimezone(_UTC).isoformat(timespec="microseconds")
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise Refused(f"{column.field} is not an ISO 8601 time") from None


def _json(value: Any, column: Column) -> Any:
    try:
        form = canonical(value)
    except ValueError as error:
        raise Refused(f"{column.field} contains {error}") from None
    check_json(form, column.field)
    return form


def check_json(value: Any, name: str) -> None:
    """Raise Refused for what JSONB cannot hold: NUL characters and lone surrogates."""
    # The bytes may also be an escaped backslash followed by u0000; only then look closely.
    if b"\\u0000" in dump_json(value, name) and _has_nul(value):
        raise Refused(f"{name} contains a NUL character")


def _has_nul(value: Any) -> bool:
    if type(value) is str:
        return "\x00" in value
    if type(value) is dict:
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return type(value) is list and any(_has_nul(item) for item in value)


def dump_json(value: Any, name: str) -> bytes:
    """JSON text for a jsonb column."""
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            # orjson stops at 64-bit integers; what still fails is a lone surrogate.
            return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except ValueError:
            raise Refused(f"{name} contains a lone surrogate, NaN or Infinity") from None


def _joined(value: Any, column: Column) -> str:
    if type(value) is not str:
        raise Refused(f"{column.field} is not text")
    if "\x00" in value:
        raise Refused(f"{column.field} contains a NUL character")
    if column.limit is not None and len(value) > column.limit:
        longest = max(map(len, value.split(SEPARATOR)))
        if longest > column.limit:
            raise Refused(
                f"{column.field} holds an id of {longest:,} characters, {column.name} takes {column.limit}"
            )
    return value


_FORMS: dict[Kind, Callable[[Any, Column], Any]] = {
    Kind.TEXT: _text,
    Kind.INT: _int,
    Kind.EPOCH: _epoch,
    Kind.ISO: _iso,
    Kind.JSON: _json,
    Kind.JOINED: _joined,
}


def _check_key(key: str, table: Table) -> None:
    if "\x00" in key:
        raise Refused("its key contains a NUL character")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise Refused("its key contains a lone surrogate") from None
    if table.key_limit is not None and len(key) > table.key_limit:
        raise Refused(f"its key has {len(key):,} characters, {table.name}.id takes {table.key_limit}")
    if table.graph and size > BTREE_BYTES - 200:
        raise Refused(f"its key has {size:,} bytes, a graph key takes about {BTREE_BYTES - 200:,}")


class Shape:
    """How one namespace's records look in Postgres."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.table = TABLES[namespace]
        self._columns = [(column, _FORMS[column.kind]) for column in self.table.columns]
        self._known = {column.field for column in self.table.columns}

    def form(self, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The record as Postgres gives it back: known fields in canonical form, absent ones left out."""
        _check_key(key, self.table)
        if self.table.graph:
            return self._properties(key, fields)
        form: dict[str, Any] = {}
        for column, convert in self._columns:
            value = fields.get(column.field)
            if value is None:
                continue
            value = convert(value, column)
            if value == column.absent or (column.kind is Kind.JSON and value == {} and column.absent is None):
                continue
            form[column.field] = value
        return form

    def _properties(self, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        form: dict[str, Any] = canonical(fields)
        if self.namespace == "nodes":
            form["entity_id"] = key  # LightRAG's table storage forces it (pgtable_impl.py, _node_props)
        check_json(form, "a property")
        return form

    def examine(self, batch: Batch, into: Examination) -> Batch:
        """See `Store.examine`."""
        result = Batch(namespace=batch.namespace, position=batch.position, size=batch.size)
        kept: list[int] = []
        finite: list[bool] = [True] * len(batch)
        if batch.vectors is not None:
            finite = np.asarray(np.isfinite(batch.vectors).all(axis=1)).tolist()
        for index, (key, fields) in enumerate(zip(batch.keys, batch.fields, strict=True)):
            try:
                if not finite[index]:
                    raise Refused("its vector contains NaN or Infinity")
                form = self.form(key, fields)
                for text in form.values():
                    if type(text) is str:
                        text.encode()
            except UnicodeEncodeError:
                into.refuse(batch.namespace, printable(key), "it contains a lone surrogate")
                continue
            except ValueError as error:
                into.refuse(batch.namespace, printable(key), str(error))
                continue
            if not self.table.graph:
                for name in fields.keys() - self._known:
                    if fields[name] is not None:
                        into.lost[(batch.namespace, name)] = into.lost.get((batch.namespace, name), 0) + 1
            kept.append(index)
            result.keys.append(key)
            result.fields.append(form)
        if batch.vectors is not None:
            result.vectors = batch.vectors if len(kept) == len(batch) else batch.vectors[kept]
        return result


def printable(key: str, length: int = 120) -> str:
    """A key as it may be shown: no control characters, lone surrogates escaped, not too long."""
    key = key.replace(EDGE_SEPARATOR, " ~ ").encode("utf-8", "backslashreplace").decode()
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in key)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


# --- rows out: COPY BINARY ---------------------------------------------------------------------------


def _field(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _timestamp(microseconds: int) -> bytes:
    return struct.pack(">iq", 8, microseconds)


def _encode_epoch(value: int) -> bytes:
    return _timestamp((value - _EPOCH_2000) * 1_000_000)


def _encode_iso(value: str) -> bytes:
    moment = dt.datetime.fromisoformat(value).replace(tzinfo=None)
    return _timestamp((moment - _Y2000) // _MICROSECOND)


def _encode_joined(value: str) -> bytes:
    parts = value.split(SEPARATOR)
    header = struct.pack(">iiiii", 1, 0, _VARCHAR_OID, len(parts), 1)
    return _field(header + b"".join(_field(part.encode()) for part in parts))


_ENCODERS: dict[Kind, Callable[[Any], bytes]] = {
    Kind.TEXT: lambda value: _field(value.encode()),
    Kind.INT: lambda value: struct.pack(">ii", 4, value),
    Kind.EPOCH: _encode_epoch,
    Kind.ISO: _encode_iso,
    Kind.JSON: lambda value: _field(b"\x01" + dump_json(value, "")),
    Kind.JOINED: _encode_joined,
}


class Encoder:
    """Rows of one namespace for one workspace, in the column order of `columns`."""

    def __init__(self, shape: Shape, workspace: str) -> None:
        self._shape = shape
        self._workspace = _field(workspace.encode())
        self._graph_namespace = _field(GRAPH_NAMESPACE.encode())
        table = shape.table
        self._encoders = [(column.field, column.absent, _ENCODERS[column.kind]) for column in table.columns]
        extra: list[str] = []
        if table.vector:
            extra = ["update_time", "content_vector"]
            if shape.namespace == "chunks":
                extra = ["tokens", "chunk_order_index", *extra]
        if table.graph:
            ends = ["id"] if shape.namespace == "nodes" else ["src_id", "tgt_id"]
            self.columns = ["workspace", "namespace", *ends, "properties"]
        else:
            self.columns = ["workspace", "id", *(column.name for column in table.columns), *extra]
        self._count = struct.pack(">h", len(self.columns))

    def encode(
        self, batch: Batch, order: Callable[[str], tuple[int | None, int | None]] | None = None
    ) -> bytes:
        """One whole COPY BINARY stream. `order` gives (tokens, chunk_order_index) of a chunk."""
        return b"".join([COPY_HEADER, *self._rows(batch, order), COPY_TRAILER])

    def _rows(
        self, batch: Batch, order: Callable[[str], tuple[int | None, int | None]] | None
    ) -> Iterable[bytes]:
        form, table = self._shape.form, self._shape.table
        vectors = None if batch.vectors is None else batch.vectors.astype(">f4").tobytes()
        dim = 0 if batch.vectors is None else batch.vectors.shape[1]
        head = struct.pack(">ihh", 4 + 4 * dim, dim, 0)
        for index, (key, raw) in enumerate(zip(batch.keys, batch.fields, strict=True)):
            fields = form(key, raw)
            yield self._count
            yield self._workspace
            if table.graph:
                yield self._graph_namespace
                ends = (key,) if self._shape.namespace == "nodes" else key.split(EDGE_SEPARATOR, 1)
                yield from (_field(end.encode()) for end in ends)
                yield _field(b"\x01" + dump_json(fields, "properties"))
                continue
            yield _field(key.encode())
            for name, absent, encode in self._encoders:
                value = fields.get(name, absent)
                yield _NULL if value is None else encode(value)
            if vectors is not None:
                if order is not None:
                    yield from (_NULL if n is None else struct.pack(">ii", 4, n) for n in order(key))
                created = fields.get("created_at")
                yield _NULL if created is None else _encode_epoch(created)
                yield head + vectors[index * dim * 4 : (index + 1) * dim * 4]


# --- rows in -----------------------------------------------------------------------------------------


def _decode_epoch(value: dt.datetime) -> int:
    return round(value.replace(tzinfo=_UTC).timestamp())


def _decode_iso(value: dt.datetime) -> str:
    return value.replace(tzinfo=_UTC).isoformat(timespec="microseconds")


_DECODERS: dict[Kind, Callable[[Any], Any]] = {
    Kind.EPOCH: _decode_epoch,
    Kind.ISO: _decode_iso,
    Kind.JSON: canonical,
    Kind.JOINED: lambda value: SEPARATOR.join(value),
}


class Decoder:
    """Rows as asyncpg gives them (jsonb parsed, vectors as raw bytes) -> a batch in canonical form."""

    def __init__(self, shape: Shape) -> None:
        table = shape.table
        self._namespace = shape.namespace
        self._table = table
        self._columns = [(c.field, c.absent, c.kind, _DECODERS.get(c.kind)) for c in table.columns]
        if table.graph:
            ends = ["id"] if shape.namespace == "nodes" else ["src_id", "tgt_id"]
            self.select = [*ends, "properties"]
        else:
            self.select = ["id", *(column.name for column in table.columns)]
            if table.vector:
                self.select.append("content_vector")

    def decode(self, rows: list[Any], position: int) -> Batch:
        batch = Batch(namespace=self._namespace, position=position)
        if self._table.graph:
            for row in rows:
                batch.keys.append(EDGE_SEPARATOR.join(row[:-1]) if len(row) > 2 else row[0])
                batch.fields.append(canonical(row[-1]))
            return batch
        for row in rows:
            batch.keys.append(row[0])
            fields: dict[str, Any] = {}
            for (name, absent, kind, decode), value in zip(self._columns, row[1:], strict=False):
                if value is None:
                    continue
                form = decode(value) if decode else value
                if form == absent or (kind is Kind.JSON and form == {} and absent is None):
                    continue
                fields[name] = form
            batch.fields.append(fields)
        if self._table.vector:
            raw = [row[-1] for row in rows]
            flat = np.frombuffer(b"".join(item[4:] for item in raw), dtype=">f4")
            batch.vectors = np.ascontiguousarray(flat.reshape(len(rows), -1), dtype=np.float32)
        return batch
