"""JSON as Python's own parser takes it, which is LightRAG's: NaN, numbers of any size, halves of surrogate pairs.

For files that the streaming parser stops at. One record is held at a time, and each is parsed as a whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

RECORD_CHARS = 64 << 20
"""A record that does not end within as many characters is taken for a damaged one."""
_BLOCK = 1 << 16
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Source(Protocol):
    """What text is read from."""

    def read(self, size: int) -> bytes: ...


class _Text:
    """Text that is read on as far as it is needed. Every method raises ValueError for what is not JSON."""

    def __init__(self, file: Source) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = 0
        self._ended = False

    def _more(self, least: int = _BLOCK) -> None:
        data = self._file.read(max(_BLOCK, least))
        self._ended = not data
        self._text, self._at = self._text[self._at :] + self._decode(data, self._ended), 0

    def peek(self) -> str:
        """The next character that is no space, without taking it; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def take(self, wanted: str) -> str:
        """The next character, which must be one of `wanted`."""
        found = self.peek()
        if not found or found not in wanted:
            raise ValueError(f"expected one of {wanted}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except ValueError:
                end = len(self._text)
                if self._ended or end - self._at > RECORD_CHARS:
                    raise
            if end < len(self._text) or self._ended:  # a number may go on behind the border
                self._at = end
                return value
            self._more(len(self._text) - self._at)

    def members(self) -> Iterator[str]:
        """The keys of an object; whoever asks takes the value before the next key."""
        self.take("{")
        if self.peek() == "}":
            return
        while True:
            key = self.value()
            if type(key) is not str:
                raise ValueError("a key is not a string")
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def elements(self) -> Iterator[Any]:
        """The values of an array."""
        self.take("[")
        if self.peek() == "]":
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return


def pairs(file: Source) -> Iterator[tuple[str, Any]]:
    """Keys and values of the object that a file is. Raises ValueError, RecursionError."""
    text = _Text(file)
    for key in text.members():
        yield key, text.value()
    if text.peek():
        raise ValueError("something follows the object")


def elements_of(file: Source, name: str) -> Iterator[Any]:
    """The values of one array in the object that a file begins with. Raises ValueError, RecursionError."""
    text = _Text(file)
    for key in text.members():
        if key == name:
            yield from text.elements()
            return
        text.value()
