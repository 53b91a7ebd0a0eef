"""Values that a spec spells in its own way: sizes, times, shares, paths, references to functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field, TypeAdapter

FunctionRef = Annotated[
    str,
    Field(
        pattern=r"^.+:[A-Za-z_][A-Za-z0-9_]*$",
        json_schema_extra={"patternErrorMessage": 'must be "file.py:name" or "package.module:name"'},
    ),
]
SpecPath = Annotated[Path, Field(json_schema_extra={"minLength": 1})]
Size = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?([kKMGT]i?)?B$",
        json_schema_extra={"patternErrorMessage": 'must be a size such as "500MB", "2GB" or "1GiB"'},
    ),
]


Duration = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,6}[dhms]$",
        json_schema_extra={"patternErrorMessage": 'must be a time such as "7d", "12h", "30m" or "300s"'},
    ),
]


Share = Annotated[
    str,
    Field(
        pattern=r"^(100|[1-9]?[0-9])%$",
        json_schema_extra={"patternErrorMessage": 'must be a share such as "50%"'},
    ),
]


def seconds_of(duration: str) -> int:
    """Seconds of "7d", "12h", "30m", "300s"."""
    return int(duration[:-1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[duration[-1]]


def bytes_of(size: str) -> int:
    """Bytes of "500MB" (powers of 1,000), "1GiB" (powers of 1,024)."""
    return int(TypeAdapter(ByteSize).validate_python(size))


def share_of(share: str) -> float:
    """0.5 of "50%"."""
    return int(share[:-1]) / 100
