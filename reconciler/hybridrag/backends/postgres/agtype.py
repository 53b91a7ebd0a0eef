"""AGE's values in text form, read exactly, and records on the wire of COPY BINARY. Pure; no connection.

agtype in text is JSON with three more things: `::numeric` behind a number, NaN and Infinity, and `::vertex`, `::edge`
and `::path` behind an object. Its integers have 64 bits; `::numeric` is what LightRAG's own parser cannot read, so it
is read here and never written.
"""

from __future__ import annotations

import json
import re
import struct
from decimal import Decimal
from typing import Any

import orjson

from hybridrag.migrate.digest import canonical
from hybridrag.model.data import EDGE_SEPARATOR, Batch, Fault

from .copy_binary import COPY_HEADER, COPY_TRAILER
from .graphs import Rows
from .rows import TOO_DEEP, Refused, Shape, dump_json

_INT64 = 1 << 63
_STRING_BYTES = (1 << 28) - 1
_ANNOTATION = re.compile(r'("(?:[^"\\]|\\.)*")|::numeric\b')
_VERSION = b"\x01"


def parse(text: bytes) -> Any:
    """A value in canonical form. Raises ValueError for what no record can hold, in words."""
    try:
        return canonical(orjson.loads(text))
    except orjson.JSONDecodeError:
        pass
    plain = _ANNOTATION.sub(lambda found: found[1] or "", text.decode())
    try:
        return canonical(json.loads(plain, parse_float=_exact, parse_constant=_not_a_number))
    except json.JSONDecodeError:
        raise ValueError("it holds a value that is not JSON") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def _exact(text: str) -> float:
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        raise ValueError("it holds a number with more digits than a double has")
    return number


def _not_a_number(text: str) -> float:
    raise ValueError("it holds NaN or Infinity")


class AgeShape(Shape):
    """How AGE gives a node or an edge back. Beside what JSONB refuses, it has no integers of more than 64 bits."""

    def form(self, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        form = super().form(key, fields)
        _check(form)
        return form


def _check(value: Any) -> None:
    """Raise Refused for what agtype cannot hold."""
    if type(value) is dict:
        for key, item in value.items():
            _check(key)
            _check(item)
    elif type(value) is list:
        for item in value:
            _check(item)
    elif type(value) is int and not -_INT64 <= value < _INT64 and int(float(value)) != value:
        raise Refused("a property is an integer that does not fit into 64 bits with a sign, all that AGE has")
    elif type(value) is str and len(value) > _STRING_BYTES // 4 and len(value.encode()) > _STRING_BYTES:
        raise Refused(f"a property has more than {_STRING_BYTES:,} bytes, the most that AGE takes")


def _doubles(value: Any) -> Any:
    """The value with integers that AGE has no type for as doubles, which hold the very same number."""
    if type(value) is dict:
        return {key: _doubles(item) for key, item in value.items()}
    if type(value) is list:
        return [_doubles(item) for item in value]
    if type(value) is int and not -_INT64 <= value < _INT64:
        return float(value)
    return value


def _value(value: Any) -> bytes:
    data = _VERSION + dump_json(_doubles(value), "")
    return struct.pack(">i", len(data)) + data


class AgeEncoder:
    """Records as rows: (properties) of a node, (start, end, properties) of an edge with the names of its ends."""

    def __init__(self, shape: AgeShape) -> None:
        self._shape = shape
        self.columns = ["properties"] if shape.namespace == "nodes" else ["src", "tgt", "properties"]

    def encode(self, batch: Batch) -> bytes:
        """One whole COPY BINARY stream."""
        count = struct.pack(">h", len(self.columns))
        parts = [COPY_HEADER]
        for key, fields in zip(batch.keys, batch.fields, strict=True):
            ends = key.split(EDGE_SEPARATOR, 1) if self._shape.namespace == "edges" else []
            parts += [count, *map(_value, ends), _value(self._shape.form(key, fields))]
        return b"".join([*parts, COPY_TRAILER])


class AgeDecoder:
    """Rows of texts back into records: (graphid, properties), with the names of both ends in between for an edge."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def decode(self, rows: Rows, position: int) -> Batch:
        """A batch; what is no record is a fault under AGE's own id."""
        batch = Batch(namespace=self._namespace, position=position)
        for index, (graphid, *names, properties) in enumerate(rows):
            try:
                fields = parse(properties or b"{}")
                if type(fields) is not dict:
                    raise ValueError("its properties are not a map")
                key = self._key(fields, names)
            except ValueError as error:
                key, fields = f"#{(graphid or b'').decode()}", {}
                batch.faults[index] = Fault(reason=str(error), record=(properties or b"").decode())
            batch.keys.append(key)
            batch.fields.append(fields)
        return batch

    def _key(self, fields: dict[str, Any], names: list[bytes | None]) -> str:
        if self._namespace == "nodes":
            name = fields.get("entity_id")
            if type(name) is not str:
                raise ValueError("the node has no entity_id")
            return name
        ends = [parse(name) for name in names if name is not None]
        if len(ends) < len(names) or any(type(end) is not str for end in ends):
            raise ValueError("the edge leads to a node that does not exist there, or has no entity_id")
        return EDGE_SEPARATOR.join(sorted(ends))
