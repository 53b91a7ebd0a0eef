"""Stream the records of `kv_store_*.json` (one object: id -> record) in bounded memory."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import ijson

from hybridrag.errors import SourceUnreadable
from hybridrag.model.data import OTHER_STORES, STORE_SEPARATOR, Batch, Fault

from . import nested_cache, python_json
from .depth import DepthWatch, TooDeep
from .files import blank, store_of
from .surrogates import PAIR, SurrogateWatch

BATCH_BYTES = 1 << 20
"""Of the file; a batch may end later by one record, and by what the parser has read ahead."""
_BOM = b"\xef\xbb\xbf"
_PYTHON_TAKES_IT = re.compile("overflow|malformed number|char in json text|lone surrogate")
T = TypeVar("T")


class LoneSurrogate(ValueError):
    """Half of a character is written as an escape; the streaming parser would make another one of it."""


def malformed(path: Path, after: int, error: object, *, opens: bool = False) -> SourceUnreadable:
    """The error for a damaged file: which one, after how many good records, and what to do. `opens`: LightRAG may open it."""
    reason = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    records = "record" if after == 1 else "records"
    either = "" if opens else " (LightRAG cannot open it either)"
    return SourceUnreadable(
        f'"{path.name}" is damaged after {after:,} good {records}: {reason[:160]}',
        where=str(path),
        hint=f"repair or restore {path.name}{either}, then run hybridrag plan again",
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

    def __init__(self, file: BinaryIO, end: int | None = None) -> None:
        super().__init__(file, end)
        self._start = file.tell()
        self._end = end
        self._watch: SurrogateWatch | None = SurrogateWatch()
        self._depth = DepthWatch(file.fileno(), self._start, None if end is None else self._start + end)
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        if size == 0 or self._watch is None:
            return super().read(size)
        while True:
            data = super().read(size)
            self._depth.add(data)
            if (at := self._watch.add(data)) is not None:
                raise LoneSurrogate(f"a lone surrogate at byte {self._start + at:,}")
            # The parser is shown only what was judged: a record that it has given cannot be taken back.
            text = self._held + data
            judged = len(text) - (PAIR if data else 0)
            if judged > 0 or not data:
                self._held = text[max(0, judged) :]
                return text[: max(0, judged)]
            self._held = text

    def again(self) -> JsonText:
        """From its beginning, for a parser that changes nothing in silence. `done` goes on counting."""
        self._file.seek(self._start)
        self._left, self._watch = self._end, None
        return self


def as_python_reads(
    text: JsonText,
    path: Path,
    fast: Callable[[JsonText], Iterator[T]],
    slow: Callable[[JsonText], Iterator[T]],
) -> Iterator[T]:
    """What the streaming parser gives; from where it stops, though Python would not, what Python's gives.

    Raises SourceUnreadable for what neither takes: LightRAG cannot open that file.
    """
    position = 0
    try:
        for item in fast(text):
            position += 1
            yield item
        return
    except TooDeep as error:
        raise malformed(path, position, error) from None
    except (ijson.JSONError, UnicodeDecodeError, LoneSurrogate) as error:
        stopped = malformed(path, position, error)
        if not _PYTHON_TAKES_IT.search(str(error)):
            raise stopped from None
    try:
        for item in itertools.islice(slow(text.again()), position, None):
            position += 1
            yield item
    except (ValueError, RecursionError) as error:
        # Without the place that Python's parser names: it is one in our buffer.
        raise malformed(path, position, getattr(error, "msg", error)) from None


Add = Callable[[Batch, Path, str, Any], None]


def read_other(paths: Sequence[Path], *, skip: int, rows: int) -> Iterator[Batch]:
    """Records of stores that are not LightRAG's own, one file after the other; any JSON is a record of theirs."""
    before = 0
    for path in paths:
        last = 0
        for batch in read_kv(path, OTHER_STORES, skip=0, rows=rows, add=_add_other):
            last = batch.position
            batch.position += before
            if batch.position > skip:
                yield batch.drop_first(max(0, skip - (batch.position - len(batch))))
        before += last


def _add_other(batch: Batch, path: Path, key: str, record: Any) -> None:
    batch.keys.append(f"{store_of(path.name)}{STORE_SEPARATOR}{key}")
    batch.fields.append({"value": record})


def read_kv(path: Path, namespace: str, *, skip: int, rows: int, add: Add | None = None) -> Iterator[Batch]:
    """Batches of (id, record); `_id` is dropped, because it repeats the key. A blank file holds none, as for LightRAG."""
    add = add or _add
    if not path.is_file() or blank(path):
        return
    modes = nested_cache.modes_of(path)
    fast = functools.partial(nested_cache.pairs, modes=modes) if modes else _pairs
    slow = nested_cache.python_pairs if modes else python_json.pairs
    position = 0
    with path.open("rb") as file:
        if file.read(3) != _BOM:
            file.seek(0)
        counted = JsonText(file)
        batch = Batch(namespace=namespace, position=0)
        start = 0
        for key, record in as_python_reads(counted, path, fast, slow):
            position += 1
            if position > skip:
                add(batch, path, key, record)
            if len(batch) >= rows or (batch.keys and counted.done - start >= BATCH_BYTES):
                batch.position, batch.size = position, counted.done - start
                start = counted.done
                yield batch
                batch = Batch(namespace=namespace, position=0)
        if len(batch):
            batch.position, batch.size = position, counted.done - start
            yield batch


def _pairs(text: JsonText) -> Iterator[tuple[str, Any]]:
    found: Iterator[tuple[str, Any]] = ijson.kvitems(text, "", use_float=True)
    return found


def _add(batch: Batch, path: Path, key: str, record: Any) -> None:
    if type(record) is dict:
        record.pop("_id", None)
        batch.fields.append(record)
    else:
        batch.faults[len(batch)] = Fault(reason=f'in "{path.name}" it is not an object', record=record)
        batch.fields.append({})
    batch.keys.append(key)
