"""Facts: what was observed, as flat mappings of simple values; `None` means absent.

One diff, one digest and one display serve every kind of thing, because all of them are just facts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool | None
Facts = Mapping[str, Value]


def digest_of(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`; mappings are ordered by key."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything that was seen, at one time, without writing anything.

    `facts` decide (they go into the digest that makes a plan stale); `details` only inform (latency, free
    disk, progress). Keys of both name a thing: `backend/pg`, `database/notes`, `store/notes@pg`,
    `registry/notes`, `journal`.
    """

    facts: Mapping[str, Facts] = field(default_factory=dict)
    details: Mapping[str, Facts] = field(default_factory=dict)

    def of(self, thing: str) -> Facts:
        """Facts of one thing; empty when it was not observed."""
        return self.facts.get(thing, {})

    def detail(self, thing: str) -> Facts:
        return self.details.get(thing, {})

    @property
    def digest(self) -> str:
        return digest_of({name: dict(facts) for name, facts in self.facts.items()})
