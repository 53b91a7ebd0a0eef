"""The variables a spec may use: `.env` beside the first spec file, and the process environment, which wins.

Called by `spec.loader` once per load. Never changes `os.environ`, and never shows a value.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from .nodes import Position
from .problems import Problem, Unreadable


class Variables(Mapping[str, str]):
    """Variables by name. Printing it shows how many there are, not what they hold."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


def read_environ(folder: Path, environ: Mapping[str, str] | None, *, order: int, file: str) -> Variables:
    """`.env` of the folder below `environ` (default: the process environment).

    Raises `Unreadable` for a `.env` that is not understood; `order` and `file` are for its positions.
    """
    return Variables(
        {**_dotenv(folder / ".env", order=order, file=file), **(os.environ if environ is None else environ)}
    )


def _dotenv(path: Path, *, order: int, file: str) -> dict[str, str]:
    if not path.is_file():  # also when it is the folder of a virtual environment
        return {}
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    def unreadable(text: str, *, line: int = 1, hint: str | None = None) -> Unreadable:
        return Unreadable(
            Problem(text=text, hint=hint, at=Position(order=order, line=line, column=1, file=file))
        )

    text = None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        why = ".env is not UTF-8 text"
    except OSError as error:
        why = f".env cannot be read: {error.strerror}"
    if text is None:
        raise unreadable(why)
    # Looked at first, because `dotenv_values` logs a line that it cannot read and goes on without it.
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            # What could not be read starts with the blank lines before it.
            lead = binding.original.string
            line = binding.original.line + lead[: len(lead) - len(lead.lstrip())].count("\n")
            raise unreadable("this line of .env is not understood", line=line, hint="write NAME=value")
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if value is not None}
