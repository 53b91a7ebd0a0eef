"""Rows on the wire: PostgreSQL's COPY BINARY, written and read.

The forms are PostgreSQL's own (`COPY … BINARY`, `*_send` and `*_recv` functions) and pgvector's
(`vector_send`, `halfvec_recv`). Pure functions over `tables.py` and `rows.py`; no connection.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import orjson

from hybridrag.migrate.digest import canonical
from hybridrag.model.data import EDGE_SEPARATOR, Batch

from .rows import Shape, dump_json
from .tables import GRAPH_NAMESPACE, SEPARATOR, Kind

COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
COPY_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_LENGTH = struct.Struct(">i")
_SHORT = struct.Struct(">h")
_LONG = struct.Struct(">q")
_VARCHAR_OID = 1043
_FOUR = struct.pack(">h", 4)
_EPOCH_2000 = 946_684_800
_Y2000 = dt.datetime(2000, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
Order = Callable[[str], tuple["int | None", "int | None"]]
"""(tokens, chunk_order_index) of a chunk."""


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
    Kind.RAW: lambda value: _field(dump_json(value, "")),
}


class Encoder:
    """Rows of one namespace for one workspace, in the column order of `columns`."""

    def __init__(self, shape: Shape, workspace: str) -> None:
        self._shape = shape
        self._number = np.dtype(">f2" if shape.half else ">f4")
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

    def encode(self, batch: Batch, order: Order | None = None) -> bytes:
        """One whole COPY BINARY stream. `order` gives (tokens, chunk_order_index) of a chunk."""
        return b"".join([COPY_HEADER, *self._rows(batch, order), COPY_TRAILER])

    def beside(self, batch: Batch) -> bytes | None:
        """The rows of `carried.py` for the same batch, as a COPY BINARY stream; None where there are none."""
        rows = []
        namespace = _field(batch.namespace.encode())
        for key, raw in zip(batch.keys, batch.fields, strict=True):
            if fields := self._shape.beside(raw):
                rows += [
                    _FOUR,
                    self._workspace,
                    namespace,
                    _field(key.encode()),
                    _field(dump_json(fields, "")),
                ]
        return b"".join([COPY_HEADER, *rows, COPY_TRAILER]) if rows else None

    def _rows(self, batch: Batch, order: Order | None) -> Iterable[bytes]:
        form, table = self._shape.form, self._shape.table
        vectors = None if batch.vectors is None else batch.vectors.astype(self._number).tobytes()
        dim = 0 if batch.vectors is None else batch.vectors.shape[1]
        size = dim * self._number.itemsize
        head = struct.pack(">ihh", 4 + size, dim, 0)
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
                yield head + vectors[index * size : (index + 1) * size]


def _decode_epoch(data: bytes) -> int:
    microseconds: int = _LONG.unpack(data)[0]
    return (microseconds + 500_000) // 1_000_000 + _EPOCH_2000


def _decode_iso(data: bytes) -> str:
    moment: dt.datetime = _Y2000 + _LONG.unpack(data)[0] * _MICROSECOND
    return moment.isoformat(timespec="microseconds") + "+00:00"


def _decode_joined(data: bytes) -> str:
    dimensions, _, _ = struct.unpack_from(">iii", data)
    if dimensions == 0:
        return ""
    count = _LENGTH.unpack_from(data, 12)[0]
    place, parts = 20, []
    for _ in range(count):
        size = _LENGTH.unpack_from(data, place)[0]
        place += 4
        parts.append(data[place : place + max(size, 0)].decode())
        place += max(size, 0)
    return SEPARATOR.join(parts)


_DECODERS: dict[Kind, Callable[[bytes], Any]] = {
    Kind.TEXT: bytes.decode,
    Kind.INT: lambda data: _LENGTH.unpack(data)[0],
    Kind.EPOCH: _decode_epoch,
    Kind.ISO: _decode_iso,
    Kind.JSON: lambda data: canonical(orjson.loads(data[1:])),
    Kind.JOINED: _decode_joined,
    Kind.RAW: lambda data: canonical(orjson.loads(data)),
}


class Decoder:
    """Rows of one namespace, selected in the order of `select`, back into records in canonical form.

    `carried`: behind them stands what is kept beside the record (`carried.py`). A column of the same name goes first.
    """

    def __init__(self, shape: Shape, *, carried: bool = False) -> None:
        table = shape.table
        self._namespace = shape.namespace
        self._carried = carried
        self._table = table
        self._columns = [(c.field, c.absent, c.kind is Kind.JSON, _DECODERS[c.kind]) for c in table.columns]
        if table.graph:
            ends = ["id"] if shape.namespace == "nodes" else ["src_id", "tgt_id"]
            self.select = [*ends, "properties"]
        else:
            self.select = ["id", *(column.name for column in table.columns)]
            if table.vector:
                self.select.append("content_vector")

    def decode(self, rows: list[list[bytes | None]], position: int) -> Batch:
        """A batch from rows of raw column values."""
        batch = Batch(namespace=self._namespace, position=position)
        if self._table.graph:
            for row in rows:
                batch.keys.append(EDGE_SEPARATOR.join((end or b"").decode() for end in row[:-1]))
                batch.fields.append(canonical(orjson.loads((row[-1] or b"\x01{}")[1:])))
            return batch
        for row in rows:
            batch.keys.append((row[0] or b"").decode())
            fields: dict[str, Any] = {}
            for (name, absent, is_json, decode), value in zip(self._columns, row[1:], strict=False):
                if value is None:
                    continue
                form = decode(value)
                if form == absent or (is_json and absent is None and form == {}):
                    continue
                fields[name] = form
            if self._carried and (text := row[len(self.select)]) is not None:
                fields = {**canonical(orjson.loads(text)), **fields}
            batch.fields.append(fields)
        if self._table.vector:
            batch.vectors = _vectors([row[len(self.select) - 1] for row in rows])
        return batch


def _vectors(values: list[bytes | None]) -> Any:
    """Shape (rows, dimensions); a missing vector becomes NaN, which equals nothing."""
    dim = max((len(value) - 4) // 4 for value in values if value is not None) if any(values) else 1
    missing = np.full(dim, np.nan, ">f4").tobytes()
    flat = np.frombuffer(b"".join(missing if value is None else value[4:] for value in values), dtype=">f4")
    return np.ascontiguousarray(flat.reshape(len(values), -1), dtype=np.float32)


class RowSplitter:
    """Splits a COPY BINARY stream, in whatever pieces it arrives, into rows of raw column values."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False

    def feed(self, data: bytes) -> Iterator[tuple[list[bytes | None], int]]:
        """(row, bytes of the row) for every row that is complete now."""
        data = self._rest + data if self._rest else bytes(data)
        place = 0
        if not self._begun:
            if len(data) < len(COPY_HEADER):
                self._rest = data
                return
            self._begun = True
            place = len(COPY_HEADER)
        end = len(data)
        while True:
            row = _row_at(data, place, end)
            if row is None:
                break
            values, following = row
            yield values, following - place
            place = following
        self._rest = data[place:]


def _row_at(data: bytes, place: int, end: int) -> tuple[list[bytes | None], int] | None:
    """The row that starts at `place` and where the next one does; None when it is not complete, or the trailer."""
    if place + 2 > end:
        return None
    count = _SHORT.unpack_from(data, place)[0]
    if count < 0:
        return None
    place += 2
    values: list[bytes | None] = []
    for _ in range(count):
        if place + 4 > end:
            return None
        size = _LENGTH.unpack_from(data, place)[0]
        place += 4
        if size < 0:
            values.append(None)
            continue
        if place + size > end:
            return None
        values.append(data[place : place + size])
        place += size
    return values, place
