"""Write a LightRAG JSON database of any size in seconds, in the files' own formats, without LightRAG.

    python -m tests.support.big_database OUT --mb 50 --dim 384

Formats: LightRAG 1.5.7 (`json_kv_impl.py`, `nano_vector_db_impl.py` and `nano_vectordb/dbs.py`, `networkx_impl.py`
over `networkx.write_graphml`). Everything is consistent: documents, their chunks, the LLM cache, entities and
relations in the key-value files, the vectors and the graph name one another. The same arguments give the
same bytes. One document is held at a time, so memory does not grow with the size (a matrix waits in a
temporary file). Used by tests that kill and by benchmarks.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt
import orjson

CHUNKS = 4
"""Chunks of a document."""
PEOPLE = 5
"""Entities of a document's own; each pair of them is a relation, and two more lead out of the document."""
HUBS = 40
"""Entities that every 40th document shares; their list of chunks grows with the database."""
CAP = 200
"""LightRAG keeps that many source ids in graph and vectors (`MAX_SOURCE_IDS_PER_ENTITY`), all of them in KV."""
SEP = "<SEP>"
START = 1_760_000_000
BLOCK = 1000
"""Vectors made at once."""

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
_PROMPT = (
    "---Task---\nExtract entities and relationships from the input text below, one per line.\n\n---Input---\n"
)

Row = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Built:
    """What was written: documents, records of all thirteen streams, bytes of all files."""

    docs: int
    records: int
    bytes: int


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


# --- key-value files: one object, two spaces, `_id` repeats the key ---


def _times(created: int) -> dict[str, int]:
    return {"create_time": created, "update_time": created}


def full_docs(corpus: Corpus) -> Iterator[Row]:
    for doc in corpus.all_documents():
        yield (
            doc.id,
            {
                "content": doc.content,
                "file_path": doc.path,
                "parse_format": "raw",
                "content_hash": md5(doc.content),
                "chunk_options": {"chunk_token_size": 120, "fixed_token": {"split_by_character": None}},
                **_times(START + doc.number),
            },
        )


def text_chunks(corpus: Corpus) -> Iterator[Row]:
    for doc in corpus.all_documents():
        for order, (chunk, text, cached) in enumerate(
            zip(doc.chunk_ids, doc.texts, doc.cache_keys, strict=True)
        ):
            yield (
                chunk,
                {
                    "tokens": len(text.split()),
                    "content": text,
                    "chunk_order_index": order,
                    "full_doc_id": doc.id,
                    "file_path": doc.path,
                    "llm_cache_list": [cached],
                    **_times(START + doc.number),
                },
            )


def llm_response_cache(corpus: Corpus) -> Iterator[Row]:
    for doc in corpus.all_documents():
        rows = [f"entity<|#|>{name}<|#|>Person<|#|>{name} stands in the report." for name in doc.people]
        answer = "\n".join([*rows, "<|COMPLETE|>"])
        for chunk, text, cached in zip(doc.chunk_ids, doc.texts, doc.cache_keys, strict=True):
            yield (
                cached,
                {
                    "return": answer,
                    "cache_type": "extract",
                    "chunk_id": chunk,
                    "original_prompt": f"{_PROMPT}{text}\n\n---Output---\n",
                    "queryparam": None,
                    **_times(START + doc.number),
                },
            )


def full_entities(corpus: Corpus) -> Iterator[Row]:
    for doc in corpus.all_documents():
        names = [*doc.people, corpus.hub(doc.number)]
        if doc.number:
            names.append(corpus.document(doc.number - 1).people[0])
        yield doc.id, {"entity_names": sorted(names), "count": len(names), **_times(START + doc.number)}


def full_relations(corpus: Corpus) -> Iterator[Row]:
    for doc in corpus.all_documents():
        pairs = sorted(relation.pair for relation in corpus.relations_of(doc))
        yield doc.id, {"relation_pairs": pairs, "count": len(pairs), **_times(START + doc.number)}


def entity_chunks(corpus: Corpus) -> Iterator[Row]:
    for entity in corpus.entities():
        # LightRAG loses create_time when it merges a second document into an entity.
        times = {"update_time": entity.created} if len(entity.chunks) > 2 else _times(entity.created)
        yield entity.name, {"chunk_ids": list(entity.chunks), "count": len(entity.chunks), **times}


def relation_chunks(corpus: Corpus) -> Iterator[Row]:
    for relation in corpus.relations():
        yield (
            SEP.join(relation.pair),
            {
                "chunk_ids": list(relation.chunks),
                "count": len(relation.chunks),
                **_times(relation.created),
            },
        )


def doc_status(corpus: Corpus) -> Iterator[Row]:
    for doc in corpus.all_documents():
        moment = datetime.fromtimestamp(START + doc.number + 0.25, timezone.utc)
        yield doc.id, {
            "status": "processed",
            "content_summary": doc.content[:247] + "...",
            "content_length": len(doc.content),
            "created_at": moment.isoformat(timespec="microseconds"),
            "updated_at": moment.replace(microsecond=987_654).isoformat(timespec="microseconds"),
            "file_path": doc.path,
            "track_id": f"insert_{doc.number:07d}",
            "content_hash": md5(doc.content),
            "metadata": {"parse_format": "raw", "process_start_time": START + doc.number, "chunk_opts": "size=120"},
            "chunks_count": CHUNKS,
            "chunks_list": list(doc.chunk_ids),
        }  # fmt: skip


KV: dict[str, Callable[[Corpus], Iterator[Row]]] = {
    "doc_status": doc_status,
    "entity_chunks": entity_chunks,
    "full_docs": full_docs,
    "full_entities": full_entities,
    "full_relations": full_relations,
    "llm_response_cache": llm_response_cache,
    "relation_chunks": relation_chunks,
    "text_chunks": text_chunks,
}


def kv_file(rows: Iterable[Row], *, with_id: bool) -> Iterator[bytes]:
    """As `json.dump(…, indent=2, ensure_ascii=False)` writes it."""
    before = b"{\n"
    for key, record in rows:
        whole = {key: {**record, "_id": key} if with_id else record}
        yield before + orjson.dumps(whole, option=orjson.OPT_INDENT_2)[2:-2]
        before = b",\n"
    yield b"{}" if before == b"{\n" else b"\n}"


# --- vector files: one line, every vector twice ---


def chunk_rows(corpus: Corpus) -> Iterator[Row]:
    for doc in corpus.all_documents():
        for chunk, text in zip(doc.chunk_ids, doc.texts, strict=True):
            yield chunk, {"content": text, "full_doc_id": doc.id, "file_path": doc.path}


def entity_rows(corpus: Corpus) -> Iterator[Row]:
    for entity in corpus.entities():
        yield (
            f"ent-{md5(entity.name)}",
            {
                "entity_name": entity.name,
                "content": f"{entity.name}\n{entity.text}",
                "source_id": SEP.join(entity.chunks[:CAP]),
                "file_path": entity.path,
            },
        )


def relation_rows(corpus: Corpus) -> Iterator[Row]:
    for relation in corpus.relations():
        one, other = relation.pair
        yield (
            f"rel-{md5(one + other)}",
            {
                "src_id": one,
                "tgt_id": other,
                "source_id": SEP.join(relation.chunks[:CAP]),
                "content": f"{relation.keywords}\t{one}\n{other}\n{relation.text}",
                "file_path": relation.path,
            },
        )


VECTORS: dict[str, Callable[[Corpus], Iterator[Row]]] = {
    "chunks": chunk_rows,
    "entities": entity_rows,
    "relationships": relation_rows,
}


def _vectors(
    count: int, block: int, corpus: Corpus, stream: str
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
    """`count` embeddings around 64 topics, as the file holds them: (float16 with its norm, float32 of length 1)."""
    topics = np.random.default_rng(corpus.seed).standard_normal((64, corpus.dim), dtype=np.float32)
    rng = np.random.default_rng([corpus.seed, block, zlib.crc32(stream.encode())])
    made = rng.standard_normal((count, corpus.dim), dtype=np.float32)
    made += topics[rng.integers(0, 64, count)]
    made *= rng.uniform(0.5, 3.0, (count, 1)).astype(np.float32) / np.float32(corpus.dim**0.5)
    return made.astype(np.float16), made / np.linalg.norm(made, axis=1, keepdims=True)


def vector_file(corpus: Corpus, stream: str) -> Iterator[bytes]:
    """As `NanoVectorDB.save` writes it; the matrix stands last and is kept in a temporary file until then."""
    yield b'{"embedding_dim": %d, "data": [' % corpus.dim
    with tempfile.TemporaryFile() as matrix:
        before, rest = b"", b""
        for block, rows in enumerate(_blocks(VECTORS[stream](corpus))):
            halves, units = _vectors(len(rows), block, corpus, stream)
            lines: list[bytes] = []
            for index, (key, fields) in enumerate(rows):
                moment = START + block
                row = {
                    "__id__": key,
                    "__created_at__": moment,
                    "__write_seq__": moment * 10**9 + index,
                    **fields,
                    "vector": base64.b64encode(zlib.compress(halves[index].tobytes())).decode(),
                }
                lines.append(json.dumps(row, ensure_ascii=False).encode())
            yield before + b", ".join(lines)
            before = b", "
            whole = rest + units.tobytes()
            cut = len(whole) - len(whole) % 3  # so that the pieces join to one base64 text
            matrix.write(base64.b64encode(whole[:cut]))
            rest = whole[cut:]
        matrix.write(base64.b64encode(rest))
        yield b'], "matrix": "'
        matrix.seek(0)
        while piece := matrix.read(1 << 20):
            yield piece
    yield b'"}'


def _blocks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    block: list[Row] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


# --- the graph ---

_NODE = ("entity_id", "entity_type", "description", "source_id", "file_path", "created_at", "truncate")
_EDGE = ("weight", "description", "keywords", "source_id", "file_path", "created_at", "truncate")
_TYPE = {"weight": "double", "created_at": "long"}
_HEAD = (
    "<?xml version='1.0' encoding='utf-8'?>\n"
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">'
)


def graph_file(corpus: Corpus) -> Iterator[bytes]:
    """As `networkx.write_graphml` writes an undirected graph."""
    declared = [("node", name) for name in _NODE] + [("edge", name) for name in _EDGE]
    keys = [
        f'<key id="d{number}" for="{kind}" attr.name="{name}" attr.type="{_TYPE.get(name, "string")}"/>\n'
        for number, (kind, name) in reversed(list(enumerate(declared)))
    ]
    yield f'{_HEAD}{"".join(keys)}<graph edgedefault="undirected">'.encode()
    for entity in corpus.entities():
        sources = SEP.join(entity.chunks[:CAP])
        cut = f"FIFO {CAP}/{len(entity.chunks)}" if len(entity.chunks) > CAP else ""
        values = (entity.name, entity.kind, entity.text, sources, entity.path, entity.created, cut)
        yield f"<node id={_attribute(entity.name)}>\n{_data(0, values)}</node>\n".encode()
    for relation in corpus.relations():
        sources = SEP.join(relation.chunks[:CAP])
        values = (1.0, relation.text, relation.keywords, sources, relation.path, relation.created, "")
        ends = f"source={_attribute(relation.one)} target={_attribute(relation.other)}"
        yield f"<edge {ends}>\n{_data(len(_NODE), values)}</edge>\n".encode()
    yield b"</graph></graphml>"


def _attribute(text: str) -> str:
    return quoteattr(text, {'"': "&quot;"})


def _data(first: int, values: tuple[Any, ...]) -> str:
    return "".join(
        f'  <data key="d{first + index}">{escape(str(value))}</data>\n' for index, value in enumerate(values)
    )


# --- all of it ---


def all_files(corpus: Corpus) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, pieces) of every file of the database."""
    for name, rows in KV.items():
        yield f"kv_store_{name}.json", kv_file(rows(corpus), with_id=name != "doc_status")
    for name in VECTORS:
        yield f"vdb_{name}.json", vector_file(corpus, name)
    yield "graph_chunk_entity_relation.graphml", graph_file(corpus)


def _size(docs: int, dim: int, seed: int) -> int:
    return sum(len(piece) for _, pieces in all_files(Corpus(docs, dim, seed)) for piece in pieces)


def docs_for(mb: float, dim: int, seed: int = 7) -> int:
    """Documents that make a database of about `mb` million bytes, from two small samples."""
    few, more = HUBS, 2 * HUBS
    small, large = _size(few, dim, seed), _size(more, dim, seed)
    per_doc = (large - small) / (more - few)
    return max(1, round((mb * 1e6 - (small - few * per_doc)) / per_doc))


def build(
    out: Path, *, mb: float | None = None, docs: int | None = None, dim: int = 384, seed: int = 7
) -> Built:
    """Write the database into the folder `out` (made if need be); its size by `mb` or by `docs`."""
    if docs is None:
        docs = docs_for(50.0 if mb is None else mb, dim, seed)
    out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(docs, dim, seed)
    size = 0
    for name, pieces in all_files(corpus):
        with (out / name).open("wb", buffering=1 << 20) as file:
            for piece in pieces:
                size += file.write(piece)
    return Built(docs, sum(counts(docs).values()), size)


def counts(docs: int) -> dict[str, int]:
    """Records of each stream in a database of so many documents."""
    entities, relations = PEOPLE * docs + min(HUBS, docs), (PEOPLE * (PEOPLE - 1) // 2 + 2) * docs - 1
    by_doc = dict.fromkeys(("full_docs", "full_entities", "full_relations", "doc_status"), docs)
    by_chunk = dict.fromkeys(("text_chunks", "llm_response_cache", "chunks"), CHUNKS * docs)
    by_entity = dict.fromkeys(("entity_chunks", "nodes", "entities"), entities)
    by_relation = dict.fromkeys(("relation_chunks", "edges", "relationships"), relations)
    return {**by_doc, **by_chunk, **by_entity, **by_relation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder; its files of the same names are replaced")
    parser.add_argument("--mb", type=float, default=50.0, help="size of all files, in million bytes")
    parser.add_argument("--docs", type=int, help="documents, instead of a size")
    parser.add_argument("--dim", type=int, default=384, help="dimensions of the vectors")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    began = time.perf_counter()
    built = build(given.out, mb=given.mb, docs=given.docs, dim=given.dim, seed=given.seed)
    spent = time.perf_counter() - began
    print(
        f"{built.docs:,} documents, {built.records:,} records, {built.bytes / 1e6:,.1f} MB in {spent:.1f} s"
    )


if __name__ == "__main__":
    main()
