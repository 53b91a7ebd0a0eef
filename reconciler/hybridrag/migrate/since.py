"""What became of records since a copy began to serve: written, removed, lost, or changed by something else than LightRAG.

What served before was kept, and shows the state at the switch as long as nobody writes it. A record that only what serves
holds was written since. One that only the kept copy holds was removed by LightRAG, or is lost, and the rest of the
database tells which: LightRAG takes everything that belongs to a record along (`adelete_by_doc_id`,
`adelete_by_entity`, 1.5.7). So a record is lost as long as something that is there still needs it, and when its whole
stream is empty. A vector whose record is otherwise the same was lost or changed by something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hybridrag.model.data import Batch
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Reader, Store

from .digest import NamespaceDigest, bucket_of, record_digest
from .references import References, has_names, names_of

HELD = 300_000
"""Digests of records held at a time."""
CACHE = "llm_response_cache"

_CHUNK_IS_NAMED = (
    ("text_chunks", "id"), ("chunks", "id"), ("doc_status", "chunks_list"), ("nodes", "source_id"), ("edges", "source_id"),
    ("entities", "source_id"), ("relationships", "source_id"), ("entity_chunks", "chunk_ids"),
    ("relation_chunks", "chunk_ids"),
)  # fmt: skip
_DOCUMENT_IS_NAMED = (
    ("full_docs", "id"), ("doc_status", "id"), ("text_chunks", "full_doc_id"), ("chunks", "full_doc_id"),
)  # fmt: skip
# Not the lists of chunks: `adelete_by_entity` and `adelete_by_relation` leave them behind.
_NODE_IS_NAMED = (("nodes", "id"), ("entities", "entity_name"), ("edges", "ends"))
_EDGE_IS_NAMED = (("edges", "pair"), ("relationships", "pair"))
_NEEDED: Mapping[str, tuple[str, Sequence[tuple[str, str]]]] = {
    "full_docs": ("id", _DOCUMENT_IS_NAMED),
    "doc_status": ("id", _DOCUMENT_IS_NAMED),
    "full_entities": ("id", (("full_docs", "id"), ("doc_status", "id"))),
    "full_relations": ("id", (("full_docs", "id"), ("doc_status", "id"))),
    "text_chunks": ("id", _CHUNK_IS_NAMED),
    "chunks": ("id", _CHUNK_IS_NAMED),
    "nodes": ("id", _NODE_IS_NAMED),
    "entities": ("entity_name", _NODE_IS_NAMED),
    "entity_chunks": ("id", _NODE_IS_NAMED),
    "edges": ("pair", _EDGE_IS_NAMED),
    "relationships": ("pair", _EDGE_IS_NAMED),
    "relation_chunks": ("pair", _EDGE_IS_NAMED),
}
"""By stream: the name of a record, and the sets of names in which it stands as long as anything needs it."""
_ALONE: Mapping[str, tuple[str, tuple[str, str]]] = {
    "entities": ("entity_name", ("nodes", "id")),
    "relationships": ("pair", ("edges", "pair")),
    "chunks": ("id", ("text_chunks", "id")),
}
"""By vector stream: the name of a record, and the set in which LightRAG has it as well. One that is not there is extra."""


@dataclass(slots=True, kw_only=True)
class Moved:
    """One stream: counts, and the keys of what is wrong. `blank`: the vector is gone; `spoiled`: it is another one.

    `extra` belongs to nothing that is there. `torn` vectors are gone of records that were written since: nothing that is
    kept can give them back.
    """

    written: int = 0
    changed: int = 0
    removed: int = 0
    lost: set[str] = field(default_factory=set)
    blank: set[str] = field(default_factory=set)
    torn: set[str] = field(default_factory=set)
    spoiled: set[str] = field(default_factory=set)
    extra: set[str] = field(default_factory=set)

    @property
    def damaged(self) -> int:
        return sum(map(len, (self.lost, self.blank, self.torn, self.spoiled, self.extra)))

    @property
    def mendable(self) -> set[str]:
        """What the kept copy can give back without touching a record that is there."""
        return self.lost | self.blank

    def wrong(self) -> Iterator[tuple[str, str]]:
        """(kind, key) of everything that is damaged."""
        for kind in ("lost", "blank", "torn", "spoiled", "extra"):
            for key in sorted(getattr(self, kind)):
                yield kind, key


@dataclass(frozen=True, slots=True)
class _Seen:
    """A record of what serves: digests of its fields and of its vector (None where it is gone), and its name."""

    fields: bytes
    vector: bytes | None
    name: str | None


async def moved_since(
    kept: Reader,
    target: Store,
    serving: Reader,
    then: Mapping[str, NamespaceDigest],
    now: Mapping[str, NamespaceDigest],
    rows: int,
    names: References,
) -> dict[str, Moved]:
    """What became of each stream. `then` and `now`: tables of the kept copy, as `target` holds it, and of what serves.

    `names` are those of everything that serves, also of slots that are elsewhere. Read-only; only records of buckets that
    differ are looked at, some at a time.
    """
    found: dict[str, Moved] = {}
    for name, table in then.items():
        moved = found[name] = Moved()
        emptied = bool(table.records) and not now[name].records
        buckets = table.differing(now[name])
        for group in _groups(buckets, table, now[name]):
            seen = await _seen(serving, name, group, rows)
            await _judge(kept, target, name, group, rows, seen, names, moved, emptied=emptied)
            _judge_new(name, seen, names, moved)
    return found


def _groups(buckets: Sequence[int], then: NamespaceDigest, now: NamespaceDigest) -> Iterator[frozenset[int]]:
    group: set[int] = set()
    held = 0
    for bucket in buckets:
        count = then.counts[bucket] + now.counts[bucket]
        if group and held + count > HELD:
            yield frozenset(group)
            group, held = set(), 0
        group.add(bucket)
        held += count
    if group:
        yield frozenset(group)


async def _seen(reader: Reader, name: str, buckets: frozenset[int], rows: int) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    async for batch in reader.read(name, rows=rows):
        for index, key in enumerate(batch.keys):
            if bucket_of(key.encode()) in buckets:
                own = next(iter(_alone_names(name, key, batch.fields[index])), None)
                found[key] = _Seen(*_digests(batch, index), own)
    return found


def _alone_names(name: str, key: str, fields: Mapping[str, Any]) -> Sequence[str]:
    return list(names_of(name, _ALONE[name][0], key, fields)) if name in _ALONE else ()


def _digests(batch: Batch, index: int) -> tuple[bytes, bytes | None]:
    fields = record_digest(batch.keys[index].encode(), batch.fields[index])
    if batch.vectors is None:
        return fields, b""
    vector = batch.vectors[index]
    gone = bool(np.isnan(vector).all())
    return fields, None if gone else hashlib.blake2b(vector.tobytes(), digest_size=16).digest()


async def _judge(
    kept: Reader,
    target: Store,
    name: str,
    buckets: frozenset[int],
    rows: int,
    seen: dict[str, _Seen],
    names: References,
    moved: Moved,
    *,
    emptied: bool,
) -> None:
    """Every record of the kept copy in these buckets; those that what serves has as well are taken out of `seen`."""
    async for raw in kept.read(name, rows=rows):
        chosen = [index for index, key in enumerate(raw.keys) if bucket_of(key.encode()) in buckets]
        if not chosen:
            continue
        batch = target.examine(raw.only(chosen), Examination())
        for index, key in enumerate(batch.keys):
            there = seen.pop(key, None)
            if there is None:
                if _is_lost(name, key, batch.fields[index], names, emptied=emptied):
                    moved.lost.add(key)
                else:
                    moved.removed += 1
                continue
            fields, vector = _digests(batch, index)
            same = fields == there.fields
            if there.vector is None and vector is not None:
                (moved.blank if same else moved.torn).add(key)
            elif same and vector != there.vector:
                moved.spoiled.add(key)
            elif not same:
                moved.changed += 1


def _is_lost(name: str, key: str, fields: Mapping[str, Any], names: References, *, emptied: bool) -> bool:
    if name == CACHE:
        # It may be cleared as a whole; an answer goes with the chunk that was asked about.
        chunk = fields.get("chunk_id")
        gone = isinstance(chunk, str) and chunk != "" and not _named(chunk, _CHUNK_IS_NAMED, names)
        return not emptied and not gone
    if name not in _NEEDED:  # a store that is not LightRAG's: it removes nothing there
        return True
    own, needed = _NEEDED[name]
    if emptied and _still_told_of(name, key, fields, names):
        return True
    return any(_named(each, needed, names) for each in names_of(name, own, key, fields))


def _named(name: str, among: Sequence[tuple[str, str]], names: References) -> bool:
    return any(names.holds(stream, field, name) for stream, field in among)


def _still_told_of(name: str, key: str, fields: Mapping[str, Any], names: References) -> bool:
    """Of a record whose whole stream is empty: whether what it was made from is there, or nothing at all is."""
    made_from = next((each for each in ("source_id", "chunk_ids") if has_names(name, each)), None)
    if made_from is None or not names.any("text_chunks", "id"):
        return True
    chunks = list(names_of(name, made_from, key, fields))
    return not chunks or any(names.holds("text_chunks", "id", chunk) for chunk in chunks)


def _judge_new(name: str, seen: Mapping[str, _Seen], names: References, moved: Moved) -> None:
    for key, record in seen.items():
        if record.vector is None:
            moved.torn.add(key)
        elif record.name is not None and not names.holds(*_ALONE[name][1], record.name):
            moved.extra.add(key)
        else:
            moved.written += 1
