r"""Find lone surrogates (`\ud800`) in JSON text while it is streamed. Called by the readers of this folder.

The streaming parser (yajl) says nothing about them: it makes "?" of one, or merges it with the escape after it into
another character. A record must never be changed in silence, so they are looked for in the bytes themselves.
"""

from __future__ import annotations

import re

_SURROGATE = re.compile(rb"\\u[dD]([89abABcdefCDEF])[0-9a-fA-F]{2}")
_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_BEFORE = 64
"""Bytes kept of the block before: an escape and its neighbour may stand on both sides of a border."""
PAIR = 12
"""Bytes at the end of what was seen that are not judged yet."""


class SurrogateWatch:
    """Fed block by block; `add` returns the offset of the first lone surrogate as soon as it is sure of one."""

    def __init__(self) -> None:
        self._text = b""
        self._start = 0  # offset of _text in the stream
        self._judged = 0  # offset up to which everything was judged

    def add(self, block: bytes) -> int | None:
        """`block` is what follows in the stream; an empty one ends it."""
        text = self._text + block
        end = len(text) if not block else len(text) - PAIR
        found = None
        if b"\\u" in text and (b"\\ud" in text or b"\\uD" in text):
            found = self._search(text, end)
        kept = max(0, len(text) - _BEFORE)
        while kept and text[kept - 1] == 0x5C:  # a run of backslashes counts only as a whole
            kept -= 1
        self._judged = max(self._judged, self._start + end)
        self._text, self._start = text[kept:], self._start + kept
        return found

    def _search(self, text: bytes, end: int) -> int | None:
        first = max(0, self._judged - self._start)
        for match in _SURROGATE.finditer(text, first):
            at = match.start()
            if at >= end:
                return None
            if _escaped(text, at):
                continue
            if match[1] in b"89abAB":
                lone = not _LOW.match(text, match.end())
            else:
                before = _HIGH.search(text[max(0, at - 6) : at])
                lone = before is None or _escaped(text, at - 6)
            if lone:
                return self._start + at
        return None


def _escaped(text: bytes, at: int) -> bool:
    """Whether the backslash at `at` is itself escaped, and so begins nothing."""
    run = 0
    while at - run > 0 and text[at - run - 1] == 0x5C:
        run += 1
    return run % 2 == 1
