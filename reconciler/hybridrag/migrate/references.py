"""What records say of one another: an edge's ends are nodes, a chunk's document exists, a node has its vector.

The slots of a database may lie apart, so nothing is asked of a store: every rule is "this set of names lies within
that one", and both are gathered from the streams, in whatever order they are read. A name is kept once, as a 64-bit
hash, 8 bytes. LightRAG keeps most of these rules, not all: what is broken in a source may be broken in its copy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hybridrag.model.data import EDGE_SEPARATOR, Batch, printable

Hashes = npt.NDArray[np.int64]
Names = Callable[[str, Mapping[str, Any]], Iterable[str]]
"""The names that a record (key, fields) adds to a set."""
Read = Callable[[str], AsyncIterator[Batch]]
"""Reads a stream once more."""

LISTED = 5
"""Records named of each broken rule; all names are counted."""
_FIELD_SEPARATOR = "<SEP>"
_NO_CHUNK = frozenset({"", "UNKNOWN", "manual_creation"})
"""What LightRAG writes in the place of a chunk's id where there is none (`lightrag/utils_graph.py`)."""
_PENDING = 1 << 16


def _key(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
    return (key,)


def _pair(one: str, other: str) -> str:
    """An edge has no direction, and its vector's id may be made of either order."""
    return EDGE_SEPARATOR.join(sorted((one, other)))


def _edge(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
    ends = key.split(EDGE_SEPARATOR)
    return (_pair(*ends),) if len(ends) == 2 else ()


def _ends(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
    return key.split(EDGE_SEPARATOR)


def _relation(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
    ends = (fields.get("src_id"), fields.get("tgt_id"))
    return (_pair(str(ends[0]), str(ends[1])),) if None not in ends else ()


def _tracked(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
    """The pair in the key of `relation_chunks` (`lightrag/utils.py`, make_relation_chunk_key)."""
    return (_pair(*ends),) if len(ends := key.split(_FIELD_SEPARATOR)) == 2 else ()


def _one(name: str) -> Names:
    def names(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
        value = fields.get(name)
        return (value,) if isinstance(value, str) and value else ()

    return names


def _listed(name: str) -> Names:
    def names(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
        value = fields.get(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else ()

    return names


def _joined(name: str) -> Names:
    def names(key: str, fields: Mapping[str, Any]) -> Iterable[str]:
        value = fields.get(name)
        if not isinstance(value, str):
            return ()
        return [part for part in value.split(_FIELD_SEPARATOR) if part not in _NO_CHUNK]

    return names


_SETS: Mapping[str, Mapping[str, Names]] = {
    "full_docs": {"id": _key},
    "doc_status": {"id": _key, "chunks_list": _listed("chunks_list")},
    "text_chunks": {"id": _key, "full_doc_id": _one("full_doc_id")},
    "full_entities": {"id": _key},
    "full_relations": {"id": _key},
    "entity_chunks": {"id": _key, "chunk_ids": _listed("chunk_ids")},
    "relation_chunks": {"pair": _tracked, "chunk_ids": _listed("chunk_ids")},
    "nodes": {"id": _key, "source_id": _joined("source_id")},
    "edges": {"pair": _edge, "ends": _ends, "source_id": _joined("source_id")},
    "entities": {"entity_name": _one("entity_name"), "source_id": _joined("source_id")},
    "relationships": {"pair": _relation, "source_id": _joined("source_id")},
    "chunks": {"id": _key, "full_doc_id": _one("full_doc_id")},
}
"""What is gathered of each stream."""


def names_of(stream: str, field: str, key: str, fields: Mapping[str, Any]) -> Iterable[str]:
    """What a record adds to the set of names `field` of its stream."""
    return _SETS[stream][field](key, fields)


def has_names(stream: str, field: str) -> bool:
    return field in _SETS.get(stream, {})


_PAIRS = frozenset({("nodes", "entities"), ("edges", "relationships"), ("edges", "nodes")})


@dataclass(frozen=True, slots=True)
class Rule:
    """The names in `field` of one stream are among those in `among` of another; `words` say what is wrong otherwise."""

    stream: str
    field: str
    other: str
    among: str
    words: str

    @property
    def name(self) -> str:
        return f"{self.stream}.{self.field} in {self.other}"

    @property
    def pair(self) -> bool:
        """Whether LightRAG writes and takes away both sides together, whatever it is told to do."""
        return (self.stream, self.other) in _PAIRS or (self.other, self.stream) in _PAIRS

    def names(self, key: str, fields: Mapping[str, Any]) -> Iterable[str]:
        return _SETS[self.stream][self.field](key, fields)


RULES: tuple[Rule, ...] = (
    Rule("full_docs", "id", "doc_status", "id", "documents have no status"),
    Rule("text_chunks", "full_doc_id", "full_docs", "id", "documents that chunks belong to do not exist"),
    Rule("text_chunks", "id", "chunks", "id", "chunks have no vector"),
    Rule("doc_status", "chunks_list", "text_chunks", "id", "chunks that document statuses name do not exist"),
    Rule("full_entities", "id", "full_docs", "id", "documents that entities are listed for do not exist"),
    Rule("full_relations", "id", "full_docs", "id", "documents that relations are listed for do not exist"),
    Rule("entity_chunks", "chunk_ids", "text_chunks", "id", "chunks that entities name do not exist"),
    Rule("relation_chunks", "chunk_ids", "text_chunks", "id", "chunks that relations name do not exist"),
    Rule("nodes", "id", "entities", "entity_name", "nodes have no entity vector"),
    Rule("nodes", "source_id", "text_chunks", "id", "chunks that nodes name do not exist"),
    Rule("edges", "ends", "nodes", "id", "ends of edges are no nodes"),
    Rule("edges", "pair", "relationships", "pair", "edges have no relation vector"),
    Rule("edges", "source_id", "text_chunks", "id", "chunks that edges name do not exist"),
    Rule("entities", "entity_name", "nodes", "id", "entity vectors have no node"),
    Rule("entities", "source_id", "text_chunks", "id", "chunks that entity vectors name do not exist"),
    Rule("relationships", "pair", "edges", "pair", "relation vectors have no edge"),
    Rule("relationships", "source_id", "text_chunks", "id", "chunks that relation vectors name do not exist"),
    Rule("chunks", "id", "text_chunks", "id", "chunk vectors have no chunk"),
    Rule("chunks", "full_doc_id", "full_docs", "id", "documents that chunk vectors name do not exist"),
)


class _Set:
    """Hashes of names, each once."""

    def __init__(self) -> None:
        self._whole: Hashes = np.empty(0, dtype=np.int64)
        self._pending: list[Hashes] = []
        self._waiting = 0

    def add(self, names: Iterable[str]) -> None:
        some = np.fromiter(map(hash, names), np.int64)
        self._pending.append(some)
        self._waiting += len(some)
        if self._waiting > max(_PENDING, len(self._whole)):
            self.sorted()

    def sorted(self) -> Hashes:
        if self._pending:
            self._whole = np.unique(np.concatenate([self._whole, *self._pending]))
            self._pending, self._waiting = [], 0
        return self._whole


class References:
    """The names of one side, gathered while its streams are read (`migrate.watching`)."""

    def __init__(self) -> None:
        self._sets: dict[tuple[str, str], _Set] = {}

    def add(self, batch: Batch) -> None:
        """Every batch of a stream, each once."""
        for name, names in _SETS.get(batch.namespace, {}).items():
            found = self._sets.setdefault((batch.namespace, name), _Set())
            records = zip(batch.keys, batch.fields, strict=True)
            found.add([each for key, fields in records for each in names(key, fields)])

    def copy(self) -> References:
        """The same names, whatever is forgotten here or gathered anew afterwards."""
        other = References()
        other._sets = dict(self._sets)
        return other

    def forget(self, stream: str) -> None:
        """As if the stream had not been read."""
        for name in _SETS.get(stream, {}):
            self._sets.pop((stream, name), None)

    def holds(self, stream: str, field: str, name: str) -> bool:
        """Whether this name is among those in `field` of a stream."""
        gathered = self._sets.get((stream, field))
        if gathered is None:
            return False
        known, number = gathered.sorted(), hash(name)
        place = int(np.searchsorted(known, number))
        return place < len(known) and int(known[place]) == number

    def any(self, stream: str, field: str) -> bool:
        """Whether there are names at all."""
        gathered = self._sets.get((stream, field))
        return gathered is not None and len(gathered.sorted()) > 0

    def broken(self, streams: Sequence[str]) -> dict[Rule, Hashes]:
        """For each rule between these streams, hashes of the names that are not where they should be."""
        nothing = _Set()
        return {
            rule: np.setdiff1d(
                self._sets.get((rule.stream, rule.field), nothing).sorted(),
                self._sets.get((rule.other, rule.among), nothing).sorted(),
                assume_unique=True,
            )
            for rule in RULES
            if rule.stream in streams and rule.other in streams
        }


@dataclass(slots=True, kw_only=True)
class Broken:
    """A rule that the target breaks: `names` that are missed, and how many of them the source misses as well.

    `in_quarantine` are in the source, and were left out because the target cannot hold them. `listed` are records with
    the name that they miss; those that the source has right stand first.
    """

    rule: Rule
    names: int
    as_in_source: int
    in_quarantine: int = 0
    listed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def new(self) -> int:
        """What the source has right, and the target could hold."""
        return self.names - self.as_in_source - self.in_quarantine

    def __str__(self) -> str:
        others = {"in quarantine": self.in_quarantine, "absent in the source, too": self.as_in_source}
        more = " more" if self.new else ""
        told = "; ".join(f"{number:,}{more} {words}" for words, number in others.items() if number)
        if self.new or self.in_quarantine:
            count = f"{self.new or self.names:,} {self.rule.words}" + (f" ({told})" if told else "")
        else:
            count = f"{self.names:,} {self.rule.words}, as in the source"
        return f"{count}: {', '.join(map(self._shown, self.listed))}" if self.listed else count

    def _shown(self, pair: tuple[str, str]) -> str:
        record, missed = (printable(name, 60) for name in pair)
        if self.rule.field in ("id", "pair", "entity_name"):
            return f'"{missed}"'
        return f'"{missed}" ({self.rule.stream} "{record}")'


async def compare_references(
    source: References,
    target: References,
    streams: Sequence[str],
    read: Read,
    whole: References | None = None,
) -> list[Broken]:
    """The rules that the target breaks, with some records named. `read` is asked for the streams of broken rules only.

    `whole`: the names of the source with what was left out of it; `source` where nothing was.
    """
    before, found = source.broken(streams), []
    absent = before if whole is None else whole.broken(streams)
    for rule, missed in target.broken(streams).items():
        if len(missed):
            new = np.setdiff1d(missed, before[rule], assume_unique=True)
            known = len(missed) - len(new)
            nowhere = len(np.intersect1d(missed, absent[rule], assume_unique=True))
            broken = Broken(
                rule=rule,
                names=len(missed),
                as_in_source=min(nowhere, known),
                in_quarantine=known - min(nowhere, known),
            )
            broken.listed = await _named(rule, missed, set(new.tolist()), read)
            found.append(broken)
    return found


async def _named(rule: Rule, missed: Hashes, new: set[int], read: Read) -> list[tuple[str, str]]:
    """Records that miss a name, each name once; those that the source does not miss before the others."""
    wanted = set(missed.tolist())
    first: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    async for batch in read(rule.stream):
        for key, fields in zip(batch.keys, batch.fields, strict=True):
            for name in rule.names(key, fields):
                if (number := hash(name)) in wanted:
                    wanted.discard(number)
                    (first if number in new else others).append((key, name))
        if len(first) >= LISTED or not wanted or (not new and len(others) >= LISTED):
            break
    return [*first, *others][:LISTED]
