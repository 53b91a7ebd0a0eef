"""The terminals we write to: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.theme import Theme

THEME = Theme(
    {"verb": "bold", "good": "green", "bad": "bold red", "warn": "yellow", "soft": "dim", "next": "cyan"}
)


def console(*, to_stderr: bool = False, color: bool = True) -> Console:
    """Plain text when piped or when colour is refused (`--no-color`, NO_COLOR)."""
    stream = sys.stderr if to_stderr else sys.stdout
    # A pipe has no width: never wrap what a program may read.
    width = None if stream.isatty() else 10_000
    return Console(
        file=stream,
        theme=THEME,
        no_color=not color or None,
        highlight=False,
        soft_wrap=True,
        width=width,
        emoji=False,
    )
