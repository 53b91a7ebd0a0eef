"""The text of a `.env` as python-dotenv reads it: quoting a value, and putting values into a file of somebody else's.

What we need stands in a block at the end; a line of the user's that says otherwise becomes a comment where it stands. Both
are undone before the next change, so the user's own text is never lost. Pure; called by `adapters` and `render`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping

BEGIN = "# >>> hybridrag: the backend that serves now; rewritten when that changes >>>"
END = "# <<< hybridrag <<<"
ASIDE = "#hybridrag# "
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=&?~-]+")
_DOLLAR, _BACKSLASH = "${:-$}", "${:-\\}"
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\f": "\\f", '"': '\\"'}


def quoted(value: str) -> str:
    """The value as it must stand behind `NAME=`; python-dotenv, with its interpolation, reads exactly that back.

    Raises ValueError for a NUL, which no variable can hold.
    """
    if "\0" in value:
        raise ValueError("a variable cannot hold a NUL character")
    if _PLAIN.fullmatch(value):
        return value
    # A variable without a name is never set, so its default is what is read: the only way to write "${", and
    # a backslash at the end, which older versions take for the escape of the closing quote.
    ends = value.endswith("\\")
    safe = (value[:-1] if ends else value).replace("${", f"{_DOLLAR}{{") + (_BACKSLASH if ends else "")
    if re.search(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", value):
        return '"' + "".join(_ESCAPES.get(char, char) for char in safe) + '"'
    return "'" + safe.replace("\\", "\\\\").replace("'", "\\'") + "'"


def values_of(text: str) -> dict[str, str]:
    """What python-dotenv reads of a text that it understands."""
    from dotenv import dotenv_values

    found = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in found.items() if value is not None}


def unreadable_line(text: str) -> int | None:
    """The number of the first line that python-dotenv does not understand; None where there is none."""
    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            lead = binding.original.string
            return binding.original.line + lead[: len(lead) - len(lead.lstrip())].count("\n")
    return None


def own_text(text: str) -> str:
    """The user's text, as it would be without us."""
    lines = text.splitlines(keepends=True)
    bare = [line.rstrip("\r\n") for line in lines]
    kept: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        if bare[number] == BEGIN and END in bare[number:]:
            inside = True
        elif inside:
            inside = bare[number] != END
        elif bare[number] != BEGIN:
            kept.append(line.removeprefix(ASIDE))
    return "".join(kept)


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The user's own `text` with these values at its end, and what they replace set aside; nothing else is touched."""
    if not values:
        return text
    end = "\r\n" if "\r\n" in text else "\n"
    before = "".join(_set_aside(text, values))
    if before and not before.endswith(("\n", "\r")):
        before += end
    block = [BEGIN, *(f"{name}={quoted(value)}" for name, value in values.items()), END]
    return before + "".join(line + end for line in block)


def _set_aside(text: str, names: Collection[str]) -> Iterator[str]:
    from dotenv.parser import parse_stream

    if text.startswith("\ufeff"):
        yield "\ufeff"  # the parser leaves it out
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original.string
        if binding.key not in names:
            yield original
            continue
        for line in original.splitlines(keepends=True):
            yield ASIDE + line if line.strip() else line
