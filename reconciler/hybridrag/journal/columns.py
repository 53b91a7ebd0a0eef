"""What stands in the columns of a file of state: SQLite keeps any value in any column, so each is checked when it is read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


def moment(value: Any) -> float:
    """Seconds since 1970 that can be told as a date. Raises ValueError, TypeError, OverflowError, OSError."""
    time.localtime(float(value))
    return float(value)


def checked(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of these values. Raises ValueError for one of another type."""
    adapter: TypeAdapter[T] = TypeAdapter(kind)
    return adapter.validate_python(values)
