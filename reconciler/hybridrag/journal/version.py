"""Which version of this program is at work; what one refuses, another may know how to hold."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.cache
def tool() -> str:
    """As it is installed."""
    try:
        return metadata.version("hybridrag-reconciler")
    except metadata.PackageNotFoundError:
        return "not installed"
