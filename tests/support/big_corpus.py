"""What stands in a big database: documents, entities and relations that name one another, as a pure function."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

CHUNKS = 4
"""Chunks of a document."""
PEOPLE = 5
"""Entities of a document's own; each pair of them is a relation, and two more lead out of the document."""
HUBS = 40
"""Entities that every 40th document shares; their list of chunks grows with the database."""
START = 1_760_000_000

_NAMES = (
    "Нина",
    "李明",
    "Zoë",
    "Søren",
    "Ngũgĩ",
    "فاطمة",
    "Αθηνά",
    "José",
    "Ødegård",
    "O'Brien & Söhne",
    "Æthel",
    "山田",
)
_HUBS = (
    "Łódź Archive",
    "北京图书馆",
    "R&D «Labs»",
    "Café Réunion",
    "Reykjavík Works",
    "Αλεξάνδρεια",
    "Graph <Merge>",
)
_VERBS = (
    "audits",
    "funds",
    "reviews",
    "leads",
    "designs",
    "translates",
    "restores",
    "catalogues",
    "questions",
)
_THINGS = (
    "vector index",
    "schema drift",
    "cache eviction",
    "Straßenbau",
    "manuscript 📜",
    "Übersetzung",
    "索引",
)
_TYPES = ("person", "organization", "concept", "location")
_WORDS = (
    "the",
    "archive",
    "keeps",
    "a",
    "record",
    "of",
    "every",
    "change",
    "each",
    "reader",
    "asks",
    "what",
    "was",
)


@dataclass(frozen=True, slots=True)
class Document:
    """One document and everything that is extracted from it."""

    number: int
    id: str
    path: str
    chunk_ids: tuple[str, ...]
    texts: tuple[str, ...]
    cache_keys: tuple[str, ...]
    people: tuple[str, ...]

    @property
    def content(self) -> str:
        return " ".join(self.texts)


@dataclass(frozen=True, slots=True)
class Entity:
    """A graph node. `chunks` are all its chunks."""

    name: str
    kind: str
    text: str
    chunks: tuple[str, ...]
    path: str
    created: int


@dataclass(frozen=True, slots=True)
class Relation:
    """An undirected graph edge."""

    one: str
    other: str
    text: str
    keywords: str
    chunks: tuple[str, ...]
    path: str
    created: int

    @property
    def pair(self) -> list[str]:
        return sorted((self.one, self.other))


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class Corpus:
    """The content: a pure function of its arguments."""

    def __init__(self, docs: int, dim: int, seed: int) -> None:
        self.docs, self.dim, self.seed = docs, dim, seed
        rng = random.Random(seed)
        self._sentences = [_sentence(rng) for _ in range(2000)]
        self.document: Callable[[int], Document] = lru_cache(maxsize=8)(self._document)

    def _document(self, number: int) -> Document:
        rng = random.Random(self.seed * 1_000_003 + number)
        path = f"bericht_{number:07d}_é.txt"
        identity = f"doc-{md5(path)}"
        chunks = tuple(f"{identity}-chunk-{order:03d}" for order in range(CHUNKS))
        pick = rng.choices(self._sentences, k=6 * CHUNKS)
        texts = tuple(
            f"Report {number:07d}, part {order}. {' '.join(pick[6 * order : 6 * order + 6])}"
            for order in range(CHUNKS)
        )
        return Document(
            number=number,
            id=identity,
            path=path,
            chunk_ids=chunks,
            texts=texts,
            cache_keys=tuple(f"default:extract:{md5(chunk + str(self.seed))}" for chunk in chunks),
            people=tuple(f"{rng.choice(_NAMES)} {number:07d}-{who}" for who in range(PEOPLE)),
        )

    def all_documents(self) -> Iterator[Document]:
        return map(self.document, range(self.docs))

    def hub(self, number: int) -> str:
        """The hub of a document (by its number) or of a hub's own number."""
        number %= HUBS
        return f"{_HUBS[number % len(_HUBS)]} {number:02d}"

    def entities(self) -> Iterator[Entity]:
        for number in range(min(HUBS, self.docs)):
            chunks = tuple(self.document(n).chunk_ids[0] for n in range(number, self.docs, HUBS))
            name = self.hub(number)
            text = f"{name} appears in every {HUBS}th report."
            yield Entity(name, "organization", text, chunks, self.document(number).path, START + number)
        for doc in self.all_documents():
            for index, name in enumerate(doc.people):
                chunks = (doc.chunk_ids[index % CHUNKS], doc.chunk_ids[(index + 1) % CHUNKS])
                if index == 0 and doc.number + 1 < self.docs:
                    chunks += (self.document(doc.number + 1).chunk_ids[0],)
                kind = _TYPES[(doc.number + index) % len(_TYPES)]
                text = f"{name} {_VERBS[(doc.number + index) % len(_VERBS)]} {_THINGS[doc.number % len(_THINGS)]}."
                yield Entity(name, kind, text, chunks, doc.path, START + doc.number)

    def relations_of(self, doc: Document) -> Iterator[Relation]:
        """Every pair of the document's own people, one to the next document, one to a hub."""
        pairs = [
            (one, other, order) for order, one in enumerate(doc.people) for other in doc.people[order + 1 :]
        ]
        if doc.number + 1 < self.docs:
            pairs.append((doc.people[0], self.document(doc.number + 1).people[0], 0))
        pairs.append((doc.people[1], self.hub(doc.number), 0))
        for index, (one, other, order) in enumerate(pairs):
            verb, thing = _VERBS[index % len(_VERBS)], _THINGS[(doc.number + index) % len(_THINGS)]
            chunks = (doc.chunk_ids[order % CHUNKS],)
            text = f"{one} {verb} {thing} with {other}."
            yield Relation(one, other, text, f"{thing},{verb}", chunks, doc.path, START + doc.number)

    def relations(self) -> Iterator[Relation]:
        for doc in self.all_documents():
            yield from self.relations_of(doc)


def _sentence(rng: random.Random) -> str:
    words = rng.choices(_WORDS, k=11)
    return f"«{rng.choice(_NAMES)}» {rng.choice(_VERBS)} «{rng.choice(_THINGS)}»: {' '.join(words)} at {rng.choice(_HUBS)}."
