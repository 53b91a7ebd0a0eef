"""The mark that a copy bears where it lies: whose it is and how far it came. One table of states for all engines.

```
copying ──> copied <──> verified ──> (publishing ──>) switched
```

`publishing` is for files only, which are put in place one by one. Back from `switched` leads only taking it back
(`Store.withdraw`) or, for a copy that does not serve any more, making it a new migration's own (`Mending.reclaim`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hybridrag.errors import BackendUnavailable


class MarkState(str, enum.Enum):
    """How far a copy is. The values are stored on servers and in files, and never change."""

    COPYING = "copying"
    COPIED = "copied"
    VERIFIED = "verified"
    PUBLISHING = "publishing"
    SWITCHED = "switched"


FINISHED = frozenset({MarkState.COPIED, MarkState.VERIFIED})
"""A whole copy that does not serve: only such a one is changed record by record."""
ALLOWED: Mapping[MarkState, frozenset[MarkState]] = {
    MarkState.COPYING: frozenset({MarkState.COPIED}),
    MarkState.COPIED: frozenset({MarkState.COPIED, MarkState.VERIFIED}),
    MarkState.VERIFIED: frozenset(
        {MarkState.COPIED, MarkState.VERIFIED, MarkState.PUBLISHING, MarkState.SWITCHED}
    ),
    MarkState.PUBLISHING: frozenset({MarkState.PUBLISHING, MarkState.SWITCHED}),
    MarkState.SWITCHED: frozenset({MarkState.SWITCHED}),
}
"""What may follow on what. Marking twice is as good as once; `switched` comes after `verified` and nothing else."""
WITHDRAWN: Mapping[MarkState, MarkState] = {
    MarkState.PUBLISHING: MarkState.VERIFIED,
    MarkState.SWITCHED: MarkState.VERIFIED,
}
"""What taking back a switch makes of a mark; all others stay."""


def may_follow(state: MarkState, before: MarkState) -> bool:
    return state in ALLOWED[before]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One mark. `migration` names whose copy it is and of which state of the source; `source_fingerprint` is that state,
    later than the first one where the copy was brought up to date.
    """

    migration: str
    source_fingerprint: str
    state: MarkState


def state_of(text: str, place: str) -> MarkState:
    """A stored state. Raises BackendUnavailable for one that this version does not know."""
    try:
        return MarkState(text)
    except ValueError:
        raise BackendUnavailable(
            f'{place} bears the mark "{text}" of a newer hybridrag',
            hint="use that version, here as well",
        ) from None


def furthest_behind(states: Iterable[MarkState]) -> MarkState:
    """The state of several slots together."""
    return min(states, key=list(MarkState).index)
