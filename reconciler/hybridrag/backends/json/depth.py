"""How deep JSON is nested: Python's parser, which is LightRAG's, stops at its recursion limit; the streaming one does not,
and takes memory that grows with the square of the depth. Called while a file is streamed; a block costs microseconds.
"""

from __future__ import annotations

import os
import re

import numpy as np

MOST = 900
"""Levels. Python's own limit is 1,000 calls, some of which its caller needs."""
_BLOCK = 4 << 20
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPEN_STRING = re.compile(rb'"(?:[^"\\]|\\.)*\\?\Z', re.DOTALL)
_KEEP = bytes(range(256)).translate(None, b"[]{}")
_STEP = np.zeros(256, dtype=np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


class TooDeep(ValueError):
    """The file is nested deeper than LightRAG can read."""


class DepthWatch:
    """Fed block by block. Brackets inside strings count as well, so what looks deep is looked at again exactly, once."""

    def __init__(self, handle: int, start: int, end: int | None) -> None:
        self._handle, self._start, self._end = handle, start, end
        self._level = 0
        self._checked = False

    def add(self, block: bytes) -> None:
        """Raises TooDeep."""
        opens = block.count(b"[") + block.count(b"{")
        self._level += opens - block.count(b"]") - block.count(b"}")
        if not self._checked and (opens > MOST or self._level > MOST):
            self._checked = True
            if (deepest := deepest_level(self._handle, self._start, self._end)) > MOST:
                raise TooDeep(f"it is nested {deepest:,} levels deep; JSON parsers stop at about 1,000")


def deepest_level(handle: int, start: int, end: int | None) -> int:
    """The deepest level between two offsets of an open file; its position stays where it is."""
    level = deepest = 0
    rest = b""
    at = start
    while block := os.pread(handle, _BLOCK if end is None else min(_BLOCK, end - at), at):
        at += len(block)
        text = _STRING.sub(b"", rest + block)
        cut = _OPEN_STRING.search(text)
        rest = text[cut.start() :] if cut else b""
        brackets = text[: cut.start() if cut else len(text)].translate(None, _KEEP)
        if brackets:
            levels = level + np.cumsum(_STEP[np.frombuffer(brackets, dtype=np.uint8)], dtype=np.int64)
            deepest = max(deepest, int(levels.max()))
            level = int(levels[-1])
    return deepest
