"""Which records a vector makes findable, and vectors that lie under another embedding model than the one that is looked for.

LightRAG names places after the model (`Embedding.suffix`): told another one, it works in other, empty places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .data import BY_NAME
from .facts import Facts, Value

FINDS: Mapping[str, str] = {"chunks": "text_chunks", "entities": "nodes", "relationships": "edges"}
"""The stream of vectors -> the stream whose records are found by them."""
_ELSEWHERE, _APART = "elsewhere/", "apart/"
_SUFFIX = re.compile(r"^_(.+)_(\d+)d$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Vectors of one stream in a table or collection of another model. `rows` of this workspace, more than 0.

    `apart`: those of them whose keys are not among the vectors of the model that is looked for. `suffix` is None where
    the place is not named after a model.
    """

    namespace: str
    place: str
    rows: int
    apart: int
    suffix: str | None

    def __str__(self) -> str:
        return f"{self.rows:,} {BY_NAME[self.namespace].title} in {self.place}"

    @property
    def space(self) -> str:
        """The embedding that the name of the place tells."""
        told = _SUFFIX.match(f"_{self.suffix or ''}")
        return f'"{told[1]}" with {told[2]} dimensions' if told else "no model"


def suffix_in(rest: str) -> str | None:
    """The model's suffix in what follows a place's plain name; None where there is none."""
    return rest[1:] if _SUFFIX.match(rest) else None


def as_facts(found: Iterable[Elsewhere]) -> dict[str, Value]:
    """Their form in an observation."""
    facts: dict[str, Value] = {}
    for each in found:
        key = f"{each.namespace}/{each.suffix or ''}/{each.place}"
        facts[_ELSEWHERE + key] = each.rows
        facts[_APART + key] = each.apart
    return facts


def elsewhere_in(facts: Facts) -> tuple[Elsewhere, ...]:
    """What `as_facts` made facts of."""
    found = []
    for name, rows in facts.items():
        key = name.removeprefix(_ELSEWHERE)
        namespace, _, rest = key.partition("/")
        suffix, _, place = rest.partition("/")
        if key == name or namespace not in FINDS or not isinstance(rows, int):
            continue
        apart = facts.get(_APART + key)
        found.append(
            Elsewhere(
                namespace=namespace,
                place=place,
                rows=rows,
                apart=apart if isinstance(apart, int) else 0,
                suffix=suffix or None,
            )
        )
    return tuple(sorted(found, key=lambda each: (each.namespace, each.place)))


def strangers(records: Mapping[str, int | None], found: Iterable[Elsewhere]) -> tuple[Elsewhere, ...]:
    """Those that the model in question does not have as well: the database is, or was, used with another one.

    Tables without a suffix stay behind when LightRAG moves them to a model's own, and are none of these then.
    """
    return tuple(
        each
        for each in found
        if each.rows and (records.get(each.namespace) == 0 or (each.apart and each.suffix))
    )


def re_embedding(records: Mapping[str, int | None]) -> str:
    """What another model would cost, in words."""
    counts = [(BY_NAME[stream].title, records.get(stream)) for stream in FINDS.values()]
    told = ", ".join(f"{count:,} {title}" for title, count in counts if count)
    return f"another model would need re-embedding: a new vector for each of {told or 'its records'}"
