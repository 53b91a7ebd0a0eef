"""The daemon's log: one JSON object a line, rotating; and for a terminal one short line. Never a document's text."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

FILE_BYTES = 5_000_000
FILES = 5
_OURS = "hybridrag.watch"
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class JsonLines(logging.Formatter):
    """`time` (ISO 8601, UTC), `level`, `database`, `event`, `message`, and whatever the event has of its own."""

    def __init__(self, database: str) -> None:
        super().__init__()
        self._database = database

    def format(self, record: logging.LogRecord) -> str:
        own = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "database": self._database,
            "event": own.pop("event", "note"),
            "message": record.getMessage(),
            **own,
        }
        if record.exc_info and record.exc_info[0]:
            # The kind and the place only: the text of an error that is not ours may hold data.
            line |= {"error": record.exc_info[0].__name__, "at": _place(record.exc_info[2])}
        return json.dumps(line, ensure_ascii=False, default=str)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ShortLines(logging.Formatter):
    """For a terminal; of an error the kind and the place, as in the file."""

    def formatException(self, ei: Any) -> str:
        return f"  {ei[0].__name__ if ei[0] else 'error'} at {_place(ei[2])}"


def _place(trace: Any) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


class _OwnOnly(RotatingFileHandler):
    """Its files are the user's alone: names of documents stand in them."""

    def _open(self) -> Any:
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return super()._open()


@contextmanager
def logging_to(path: Path, database: str, *, terminal: bool) -> Iterator[logging.Logger]:
    """The daemon's logger, while open. `terminal`: people read along on stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(_OURS)
    log.setLevel(logging.INFO)
    log.propagate = False
    rotating = _OwnOnly(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8")
    rotating.setFormatter(JsonLines(database))
    handlers: list[logging.Handler] = [rotating]
    if terminal:
        shown = logging.StreamHandler(sys.stderr)
        shown.setFormatter(ShortLines("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
        handlers.append(shown)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield log
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
