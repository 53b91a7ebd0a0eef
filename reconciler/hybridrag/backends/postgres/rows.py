"""Records as Postgres holds them: the form it would give back for each, and what it refuses.

Pure functions over `tables.py`; no connection. `copy_binary.py` puts the forms on the wire.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from hybridrag.migrate.digest import canonical
from hybridrag.model.data import Batch, Vectors, printable
from hybridrag.model.findings import Examination

from .tables import BTREE_TEXT_BYTES, SEPARATOR, TABLES, Column, Kind, Table

DEPTH = 250
"""Levels of nested JSON; orjson writes 254, and what is read back must be written again to compare it."""
TOO_DEEP = f"it is nested deeper than {DEPTH} levels"
_UTC = dt.timezone.utc


class Refused(ValueError):
    """Postgres cannot hold this value; the message says why, without the value."""


def _text(value: Any, column: Column) -> str:
    if type(value) is not str:
        raise Refused(f"{column.field} is not text")
    if "\x00" in value:
        raise Refused(f"{column.field} contains a NUL character")
    if column.limit is not None and len(value) > column.limit:
        raise Refused(f"{column.field} has {len(value):,} characters, {column.name} takes {column.limit}")
    if column.indexed and (size := len(value.encode())) > BTREE_TEXT_BYTES:
        raise Refused(f"{column.field} has {size:,} bytes, its index takes about {BTREE_TEXT_BYTES:,}")
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


def _raw(value: Any, column: Column) -> Any:
    try:
        form = canonical(value)
    except ValueError as error:
        raise Refused(f"{column.field} contains {error}") from None
    dump_json(form, column.field)
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
            # orjson stops at 64-bit integers and 254 levels; what still fails is a lone surrogate.
            if _deeper(value, DEPTH):
                raise Refused(TOO_DEEP)
            return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise Refused(f"{name} contains a lone surrogate") from None


def _deeper(value: Any, limit: int) -> bool:
    if type(value) is dict:
        return not limit or any(_deeper(item, limit - 1) for item in value.values())
    return type(value) is list and (not limit or any(_deeper(item, limit - 1) for item in value))


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
    Kind.RAW: _raw,
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
    if table.key_limit is None and size > BTREE_TEXT_BYTES:
        takes = "a graph key" if table.graph else "its index"
        raise Refused(f"its key has {size:,} bytes, {takes} takes about {BTREE_TEXT_BYTES:,}")


class Shape:
    """How one namespace's records look in Postgres; `half` where its vectors are held as float16 (halfvec)."""

    def __init__(self, namespace: str, *, half: bool = False) -> None:
        self.namespace = namespace
        self.half = half
        self.table = TABLES[namespace]
        self._columns = [(column, _FORMS[column.kind]) for column in self.table.columns]
        self._known = {column.field for column in self.table.columns}

    def form(self, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The record as Postgres gives it back: in canonical form, with absent values of columns left out."""
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
        form.update(self.beside(fields))
        return form

    def beside(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What the table has no column for, in canonical form. It is kept as text, which also takes a NUL character."""
        found: dict[str, Any] = {}
        for name in () if self.table.graph else fields.keys() - self._known:
            found[name] = _raw(fields[name], Column("fields", name, Kind.RAW))
            dump_json(name, "the name of a field")
        return found

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
        fits = finite
        vectors = batch.vectors
        if vectors is not None:
            finite = np.asarray(np.isfinite(vectors).all(axis=1)).tolist()
            if self.half:
                vectors = _halved(vectors)
                fits = np.asarray(np.isfinite(vectors).all(axis=1)).tolist()
        for index, (key, fields) in enumerate(zip(batch.keys, batch.fields, strict=True)):
            try:
                if not finite[index]:
                    raise Refused("its vector contains NaN or Infinity")
                if not fits[index]:
                    raise Refused("its vector has a component above 65,504, the most that halfvec holds")
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
            except RecursionError:
                into.refuse(batch.namespace, printable(key), TOO_DEEP)
                continue
            if not self.table.graph and (unknown := fields.keys() - self._known):
                into.carry(batch.namespace, unknown)
            kept.append(index)
            result.keys.append(key)
            result.fields.append(form)
        if vectors is not None:
            result.vectors = vectors if len(kept) == len(batch) else vectors[kept]
        return result


def _halved(vectors: Vectors) -> Vectors:
    """The vectors as float16 holds them; what is too large becomes Infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        halved: Vectors = vectors.astype(np.float16).astype(np.float32)
    return halved
