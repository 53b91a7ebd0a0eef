"""What a database that serves has lost since it was switched to, as far as numbers tell. Pure.

LightRAG deletes as well as it writes, so a smaller number alone says nothing. What says something: a stream that is empty
now; fewer vectors for as many nodes, edges or chunks. `hybridrag drift` compares record by record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hybridrag.errors import BackendUnavailable
from hybridrag.model.data import BY_NAME, Slot, streams_of
from hybridrag.model.facts import Facts, Observation
from hybridrag.model.marks import FINISHED, MarkState
from hybridrag.model.wanted import Wanted

from .completeness import in_one_sentence, missing_streams, records_in_use, streams_missing_of
from .parts import Part, canonical, store_thing
from .stores import start_once, way_back

Counts = Mapping[str, int | None]
PAIRS: tuple[tuple[str, str], ...] = (
    ("entities", "nodes"),
    ("relationships", "edges"),
    ("chunks", "text_chunks"),
)
"""A vector stream and the one whose every record has a vector in it."""
_MAY_BE_EMPTIED = frozenset({"llm_response_cache"})
"""LightRAG's `aclear_cache` takes all of it."""


def losses(served: Mapping[str, int], now: Counts) -> tuple[str, ...]:
    """In words what is gone. `served`: records of each stream when it began to serve; empty where nobody noted them."""
    before = {name: count for name, count in served.items() if count and now.get(name) is not None}
    if before and not any(now[name] for name in before):
        return (f"all {sum(before.values()):,} records that it was switched to with are gone",)
    named = {missing.namespace for missing in missing_streams(now)}
    emptied = [name for name in before if not now[name] and name not in named | _MAY_BE_EMPTIED]
    found = [f"its {before[name]:,} {BY_NAME[name].title} are gone" for name in emptied]
    for vectors, others in PAIRS:
        here, there = now.get(vectors), now.get(others)
        if not here or there is None or vectors not in served or others not in served:
            continue
        gone = (there - here) - max(0, served[others] - served[vectors])
        if gone > 0 and here < served[vectors]:
            found.append(
                f"{gone:,} {BY_NAME[vectors].title} are gone, for the {BY_NAME[others].title} are there"
            )
    return tuple(found)


def lost_indexes(facts: Facts, slots: Collection[Slot]) -> tuple[str, ...]:
    """In words the vector indexes that are missing in a store as it was observed."""
    return tuple(
        f"the vector index of its {BY_NAME[name].title} is missing"
        for name in streams_of(slots)
        if facts.get(f"unindexed/{name}") and facts.get(f"records/{name}")
    )


def damage(facts: Facts, slots: Collection[Slot]) -> tuple[str, ...]:
    """In words what is wrong with the vectors of a store as it was observed: indexes and vectors that are gone."""
    blank = tuple(
        f"{facts[f'blank/{name}']:,} of its {BY_NAME[name].title} have no vector any more"
        for name in streams_of(slots)
        if facts.get(f"blank/{name}")
    )
    return (*lost_indexes(facts, slots), *blank)


def damage_in_place(
    item: Wanted, parts: Sequence[Part], observation: Observation, served: Mapping[str, int]
) -> list[str]:
    """What backends that go on serving lack or lost: nothing is moved there, and yet it must be said."""
    now = records_in_use(item.database, parts, observation)
    missing = missing_streams(now)
    about = f'database "{item.database}"'
    found = []
    for part in parts:
        if not part.in_place:
            continue
        if lacking := streams_missing_of(missing, part.slots):
            found.append(
                f'{about}: backend "{part.target.name}" holds {in_one_sentence(lacking)}; '
                f"hybridrag drift {item.database} says what was lost"
            )
        thing = store_thing(item.database, canonical(part.target), part.slots)
        facts = {**observation.detail(thing), **observation.of(thing)}
        found += [
            f"{about}: {words}; hybridrag repair {item.database} puts it back"
            for words in damage(facts, part.slots)
        ]
    return found + [
        f"{about}: {words}; hybridrag drift {item.database} says which" for words in losses(served, now)
    ]


def refuse_vanished(item: Wanted, part: Part, server: Facts, entry: Facts) -> str | None:
    """Of a server of ours that serves and does not exist any more: a warning where its data may have stayed.

    Raises BackendUnavailable where it went with the server: a new one would be empty.
    """
    if server.get("state") != "absent":
        return None
    what = f'database "{item.database}" is served by backend "{part.target.name}", whose server does not exist any more'
    if server.get("provision") == "docker":
        return f"{what}; made again on its old volume it has its data, on a new one it is empty"
    raise BackendUnavailable(
        f"{what}: its data folder is gone, and a new one would be empty",
        hint=f"restore the data folder from a backup{way_back(item, entry)}",
    )


def refuse_emptied(item: Wanted, part: Part, facts: Facts, entry: Facts, served: Mapping[str, int]) -> None:
    """Raises BackendUnavailable where the server that serves a part holds nothing of it, or is older than the move."""
    if facts.get("unsuffixed"):
        raise BackendUnavailable(f'database "{item.database}": {facts["unsuffixed"]}', hint=start_once(item))
    where = f'database "{item.database}" is served by backend "{part.target.name}"'
    hint = f"restore it from a backup{way_back(item, entry)}; if that is meant: --exclude {item.database}"
    if facts.get("state") in FINISHED | {MarkState.COPYING}:
        raise BackendUnavailable(
            f"{where}, but what it holds is older than the switch: the server came back from an earlier state",
            hint=hint,
        )
    if facts.get("exists") or facts.get("exists") is None:
        return
    moved = any(name.startswith("kept/") for name in entry) or facts.get("migration") is not None
    records = sum(served.values())
    if records or (moved and not served):
        what = f"{records:,} records were switched to" if records else "it was moved there"
        raise BackendUnavailable(
            f"{where}, but that holds no record of it any more ({what}): {facts.get('missing')}", hint=hint
        )
