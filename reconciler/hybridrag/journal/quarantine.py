"""The quarantine: records that a target cannot hold, one JSON object a line, in `quarantine/<database>/<migration>.jsonl`.

Each file is written whole beside its place and then put there, so a killed run leaves the one before or none. JSON is
spelled as Python spells it (and LightRAG reads it): NaN is NaN, half of a surrogate pair is an escape.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hybridrag.errors import BackendUnavailable
from hybridrag.model.data import BadRecord


def quarantine_path(state: Path, database: str, migration: str) -> Path:
    return state / "quarantine" / database / f"{migration}.jsonl"


@contextlib.contextmanager
def quarantine(path: Path) -> Iterator[Callable[[BadRecord], None]]:
    """See `model.services.Memory.quarantine`. Raises BackendUnavailable where the file cannot be written."""
    new = path.with_name(f".{path.name}.new")
    count = 0
    with _telling(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.unlink(missing_ok=True)
        file = os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def keep(record: BadRecord) -> None:
        nonlocal count
        count += 1
        with _telling(path):
            file.write(line(record))

    try:
        yield keep
        with _telling(path):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            if count:
                new.replace(path)
            else:
                path.unlink(missing_ok=True)
            _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            file.close()
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendUnavailable(
            f'the quarantine "{path}" cannot be written: {error.strerror or error}',
            hint="free space there, or give the state another place (--state), then run hybridrag apply",
        ) from error


def _flush(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def line(record: BadRecord) -> bytes:
    """One line: stream, key, position, reason, the record itself, and its vector where it has one."""
    told: dict[str, Any] = {
        "stream": record.namespace,
        "key": record.key,
        "position": record.position,
        "reason": record.reason,
        "record": record.record,
    }
    if record.vector is not None:
        told["vector"] = record.vector.tolist()
    try:
        text = json.dumps(told, ensure_ascii=False)
    except RecursionError:
        text = "".join(_deep(told))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace") + b"\n"  # \ud800, which is its escape in JSON as well


class _Said(str):
    """Text of JSON, not a string in it."""

    __slots__ = ()


def _deep(value: Any) -> Iterator[str]:
    """The same for what is nested deeper than Python's encoder goes."""
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if type(item) is _Said:
            yield item
        elif type(item) in (list, tuple):
            parts = [part for element in item for part in (_Said(", "), element)][1:]
            stack += [_Said("]"), *reversed(parts), _Said("[")]
        elif type(item) is dict:
            parts = []
            for key, element in item.items():
                parts += [_Said(", "), key, _Said(": "), element]
            stack += [_Said("}"), *reversed(parts[1:]), _Said("{")]
        else:
            yield json.dumps(item, ensure_ascii=False)
