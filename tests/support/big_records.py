"""The records of a big database's key-value and vector files, with the fields that LightRAG 1.5.7 gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from tests.support.big_corpus import CHUNKS, START, Corpus, md5

CAP = 200
"""LightRAG keeps that many source ids in graph and vectors (`MAX_SOURCE_IDS_PER_ENTITY`), all of them in KV."""
SEP = "<SEP>"
_PROMPT = (
    "---Task---\nExtract entities and relationships from the input text below, one per line.\n\n---Input---\n"
)

Row = tuple[str, dict[str, Any]]


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
