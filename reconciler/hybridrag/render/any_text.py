"""Text of any origin on any terminal: a file may hold what its encoding or the terminal has no character for."""

from __future__ import annotations

import io
from typing import TextIO


def take_any_text(*streams: TextIO) -> None:
    """Let them write what their encoding has no character for as an escape, where it would be an error otherwise."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def shown(text: str) -> str:
    """Lines that do nothing to a terminal: what cannot be printed stands there as an escape."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def is_text(name: str) -> bool:
    """Whether the name of a file is one that every program can read (Linux itself takes any bytes)."""
    return name == name.encode("utf-8", "replace").decode()
