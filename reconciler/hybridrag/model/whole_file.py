"""Read a small file that somebody names: never without end, and never waiting for a pipe that nobody fills."""

from __future__ import annotations

import os
from pathlib import Path


def read_at_most(path: Path, most: int) -> bytes:
    """Up to `most` bytes of a file. A pipe is read to its end, and is empty where nobody writes. Raises OSError."""
    with open(path, "rb", opener=_at_once) as file:
        return file.read(most)


def _at_once(name: str, flags: int) -> int:
    """Opening a pipe waits for its writer, unless told otherwise; reading it then waits as long as there is one."""
    opened = os.open(name, flags | os.O_NONBLOCK)
    os.set_blocking(opened, True)
    return opened
