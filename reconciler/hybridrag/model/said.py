"""Words of somebody else (a server, a driver, a program) as they may be shown and kept: without secrets, and short."""

from __future__ import annotations

from .secret import without_resolved

MOST = 500
"""Characters that are kept of one message. A server may send as many megabytes as it likes."""
_LOOKED_AT = 100 * MOST


def said(words: object) -> str:
    """Their text with every resolved secret starred, cut to `MOST` characters."""
    text = str(words)
    # Starred before it is cut: what is left of a secret that was cut in two would not be found.
    shown = without_resolved(text[:_LOOKED_AT])
    if len(shown) <= MOST:
        return shown
    return f"{shown[:MOST].rstrip()}… (cut; {len(text):,} characters)"
