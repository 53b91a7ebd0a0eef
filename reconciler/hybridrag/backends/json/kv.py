"""Stream the records of `kv_store_*.json` (one object: id -> record) in bounded memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from hybridrag.errors import SourceUnreadable
from hybridrag.model.data import Batch

from .surrogates import SurrogateWatch

BATCH_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"


def malformed(path: Path, after: int, error: object) -> SourceUnreadable:
    """The error for a damaged file: which one, after how many good records, and what to do."""
    reason = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    # Python's own parser also takes NaN and numbers of any size.
    other = (
        ""
        if re.search("overflow|malformed number|char in json text", reason)
        else " (LightRAG cannot open it either)"
    )
    records = "record" if after == 1 else "records"
    return SourceUnreadable(
        f'"{path.name}" is damaged after {after:,} good {records}: {reason[:160]}',
        where=str(path),
        hint=f"repair or restore {path.name}{other}, then run hybridrag plan again",
    )


class Counted:
    """A binary file that knows how many bytes were read, and may pretend to end early."""

    def __init__(self, file: BinaryIO, end: int | None = None) -> None:
        self._file = file
        self._left = end
        self.done = 0

    def read(self, size: int = -1) -> bytes:
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)
        data = self._file.read(size)
        if self._left is not None:
            self._left -= len(data)
        self.done += len(data)
        return data


class JsonText(Counted):
    """JSON on its way to the parser, watched for what the parser would change in silence."""

    def __init__(self, file: BinaryIO, path: Path, end: int | None = None) -> None:
        super().__init__(file, end)
        self._path = path
        self._start = file.tell()
        self._watch = SurrogateWatch()

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if size != 0 and (at := self._watch.add(data)) is not None:
            raise _lone_surrogate(self._path, self._start + at)
        return data


_RECORD = re.compile(rb'(?:\n  |"__id__": )("(?:[^"\\\n]|\\.)*")')


def _lone_surrogate(path: Path, offset: int) -> SourceUnreadable:
    with path.open("rb") as file:
        file.seek(start := max(0, offset - BATCH_BYTES))
        found = [match[1] for match in _RECORD.finditer(file.read(offset - start + 512))]
    named = ""
    if found:
        key = json.loads(found[-1].decode("utf-8", "replace")).encode("utf-8", "backslashreplace").decode()
        named = f' in record "{key}"'
    return SourceUnreadable(
        f'"{path.name}" holds a lone surrogate{named}: half of a character, which no database can store',
        where=f"{path} at byte {offset:,}",
        hint=f"repair or remove that record of {path.name}, then run hybridrag apply again",
    )


def read_kv(path: Path, namespace: str, *, skip: int, rows: int) -> Iterator[Batch]:
    """Batches of (id, record); `_id` is dropped, because it repeats the key."""
    if not path.is_file():
        return
    position = 0
    with path.open("rb") as file:
        if file.read(3) != _BOM:
            file.seek(0)
        counted = JsonText(file, path)
        batch = Batch(namespace=namespace, position=0)
        start = 0
        try:
            for key, record in ijson.kvitems(counted, "", use_float=True):
                position += 1
                if position > skip:
                    batch.keys.append(key)
                    batch.fields.append(_fields(path, key, record))
                if len(batch) >= rows or (batch.keys and counted.done - start >= BATCH_BYTES):
                    batch.position, batch.size = position, counted.done - start
                    start = counted.done
                    yield batch
                    batch = Batch(namespace=namespace, position=0)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise malformed(path, position, error) from None
        if len(batch):
            batch.position, batch.size = position, counted.done - start
            yield batch


def _fields(path: Path, key: str, record: Any) -> dict[str, Any]:
    if type(record) is not dict:
        raise SourceUnreadable(
            f'record "{key}" of "{path.name}" is not an object',
            where=str(path),
            hint="remove or repair that record",
        )
    record.pop("_id", None)
    return record
