"""Build a real LightRAG database without a paid model: LightRAG itself, a scripted model, hashed embeddings.

    python tests/support/make_database.py OUT [--docs 12] [--dim 96] [--people 0]

Works with lightrag-hku 1.4.9.8 … 1.5.7. The texts are partly non-ASCII on purpose. One document and one model
call at a time, so that two runs give the same records.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import importlib.util
import json
import random
import re
from pathlib import Path
from typing import Any

EMBEDDING = Path(__file__).parents[2] / "examples" / "01-json-to-postgres" / "embedding.py"
PEOPLE = [
    "Zoë Müller",
    "李明",
    "Αθηνά Παππά",
    "Søren Åberg",
    "فاطمة الزهراء",
    "Нина Орлова",
    "Ngũgĩ Kamau",
    "José Núñez",
]
PLACES = [
    "Łódź Archive",
    "北京图书馆",
    "Café Réunion",
    "Αλεξάνδρεια Library",
    "Reykjavík Works",
    "Bāghdād Institute",
]
SUBJECTS = [
    "vector index",
    "graph merge",
    "manuscript 📜 restoration",
    "cache eviction",
    "schema drift",
    "Straßenbau",
]
VERBS = ["leads", "audits", "designs", "reviews", "funds", "maintains"]
SENTENCE = re.compile(rf"«([^»]+)» ({'|'.join(VERBS)}) «([^»]+)» at «([^»]+)»")


def document(number: int, rng: random.Random, people: int) -> str:
    """A report of two dozen sentences that the scripted model can read."""
    sentences = [f"Report {number:05d} of the archive."]
    for _ in range(24):
        person = f"Person {rng.randrange(people):05d}" if people else rng.choice(PEOPLE)
        sentences.append(
            f"«{person}» {rng.choice(VERBS)} «{rng.choice(SUBJECTS)}» at «{rng.choice(PLACES)}» in cycle {rng.randrange(400)}."
        )
    return " ".join(sentences)


async def scripted_model(prompt: str, system_prompt: str | None = None, **_: Any) -> str:
    """LightRAG's extraction rows for the sentences above; any other prompt gets a one-line summary."""
    text = f"{system_prompt or ''}\n{prompt}"
    if "high_level_keywords" in prompt:
        return json.dumps({"high_level_keywords": ["archive"], "low_level_keywords": ["archive"]})
    if "entity_type" not in text:
        return "Summary " + hashlib.sha256(prompt.encode()).hexdigest()[:24]
    rows: dict[str, str] = {}
    for person, verb, subject, place in SENTENCE.findall(text):
        rows.setdefault(person, f"entity<|#|>{person}<|#|>Person<|#|>{person} {verb} {subject}.")
        rows.setdefault(place, f"entity<|#|>{place}<|#|>Organization<|#|>{place} works on {subject}.")
        rows.setdefault(subject, f"entity<|#|>{subject}<|#|>Concept<|#|>{subject} is studied in the archive.")
        pair = f"relation<|#|>{person}<|#|>{place}<|#|>"
        rows.setdefault(pair, f"{pair}{verb},{subject}<|#|>{person} {verb} {subject} at {place}.")
        pair = f"relation<|#|>{place}<|#|>{subject}<|#|>"
        rows.setdefault(pair, f"{pair}topic,{subject}<|#|>{place} runs an effort about {subject}.")
    return "\n".join([*rows.values(), "<|COMPLETE|>"])


class Words:
    """A tokenizer that needs no download."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.numbers: dict[str, int] = {}

    def encode(self, content: str) -> list[int]:
        for word in (found := re.findall(r"\s*\S+|\s+$", content)):
            if word not in self.numbers:
                self.numbers[word] = len(self.words)
                self.words.append(word)
        return [self.numbers[word] for word in found]

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.words[token] for token in tokens)

    def __deepcopy__(self, memo: object) -> Words:
        return self


def embedding(dim: int) -> Any:
    """The example's embedding function at any dimension."""
    spec = importlib.util.spec_from_file_location("example_embedding", EMBEDDING)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def embed(texts: list[str], **_: Any) -> Any:
        return module.np.stack([module.vector(text, dim) for text in texts])

    return embed


def arguments(dim: int) -> dict[str, Any]:
    """Constructor arguments that make LightRAG run offline, whatever its storages."""
    from lightrag.utils import EmbeddingFunc, Tokenizer

    function: dict[str, Any] = {"embedding_dim": dim, "max_token_size": 8192, "func": embedding(dim)}
    if "model_name" in {field.name for field in dataclasses.fields(EmbeddingFunc)}:
        function["model_name"] = "hash-emb"
    return {
        "llm_model_func": scripted_model,
        "llm_model_name": "scripted",
        "embedding_func": EmbeddingFunc(**function),
        "tokenizer": Tokenizer("words", Words()),
        "chunk_token_size": 120,
        "chunk_overlap_token_size": 20,
        "max_parallel_insert": 1,
        "llm_model_max_async": 1,
        "entity_extract_max_gleaning": 0,
    }


async def build(out: Path, docs: int, dim: int, people: int) -> None:
    """Insert the documents one by one, and let LightRAG write its files once at the end."""
    from lightrag import LightRAG
    from lightrag.kg import shared_storage

    rag = LightRAG(working_dir=str(out), **arguments(dim))
    await rag.initialize_storages()
    await shared_storage.initialize_pipeline_status()
    flush, status_flush = rag._insert_done, rag.doc_status.index_done_callback

    async def later(*_: Any, **__: Any) -> None:
        """LightRAG rewrites every file after every document; once is enough here."""

    rag._insert_done = rag.doc_status.index_done_callback = later
    rng = random.Random(7)
    for number in range(docs):
        await rag.ainsert(document(number, rng, people), file_paths=[f"bericht_{number:05d}_é.txt"])
    rag._insert_done, rag.doc_status.index_done_callback = flush, status_flush
    await rag.doc_status.index_done_callback()
    await rag._insert_done()
    await rag.finalize_storages()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--docs", type=int, default=12)
    parser.add_argument("--dim", type=int, default=96)
    parser.add_argument("--people", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(build(given.out, given.docs, given.dim, given.people))
