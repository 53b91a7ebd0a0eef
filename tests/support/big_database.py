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
import json
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt
import orjson

from tests.support.big_corpus import CHUNKS, HUBS, PEOPLE, START, Corpus
from tests.support.big_records import CAP, KV, SEP, VECTORS, Row

BLOCK = 1000
"""Vectors made at once."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was written: documents, records of all thirteen streams, bytes of all files."""

    docs: int
    records: int
    bytes: int


def kv_file(rows: Iterable[Row], *, with_id: bool) -> Iterator[bytes]:
    """As `json.dump(…, indent=2, ensure_ascii=False)` writes it."""
    before = b"{\n"
    for key, record in rows:
        whole = {key: {**record, "_id": key} if with_id else record}
        yield before + orjson.dumps(whole, option=orjson.OPT_INDENT_2)[2:-2]
        before = b",\n"
    yield b"{}" if before == b"{\n" else b"\n}"


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
