"""Numbers for people."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes in decimal units: 43.1 MB."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < (
            999.5 if unit == "B" else 999.95
        ):  # what would be rounded to 1000 is the next unit's
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """1.2 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """1 step, 3 steps."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"
