"""The child process in which LightRAG ingests: one database, many requests, until it is told to stop.

Started by `ingester.py`. stdin: a line of JSON with everything it needs (secrets included), then one line for each
request; stdout: one line for each answer, `known` in several. Whatever LightRAG prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridrag.adapters.ingest_documents import PAGE, Documents
from hybridrag.adapters.lightrag_child import die_with
from hybridrag.adapters.lightrag_instance import build
from hybridrag.adapters.lightrag_models import Said, completer, embedder
from hybridrag.adapters.lightrag_tokens import tokenizer
from hybridrag.errors import BackendUnavailable, HybridragError, SpecInvalid
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.watching import Document


async def started(task: dict[str, Any]) -> tuple[Any, Documents]:
    """LightRAG with its storages open, and what was cut off before finished."""
    os.environ.update(task["variables"])
    selection, embedding = Selection(**task["selection"]), Embedding(**task["embedding"])
    said = Said()
    embed = embedder(task["models"], embedding, task["base_dir"], said)
    complete = completer(task["models"], said)
    if embed is None or complete is None:
        raise SpecInvalid(
            "ingesting needs a language model and an embedding model",
            hint="set models.llm, and models.embedding or the database's embedding.function, in the spec",
        )
    tokens, words = tokenizer(Path(task["tokenizer"]))
    print(words, file=sys.stderr, flush=True)  # noqa: T201  # stderr is the log
    rag = build(
        selection,
        embedding,
        embedding_func=embed,
        llm_model_func=complete,
        llm_model_name=(task["models"]["llm"] or {}).get("name"),
        tokenizer=tokens,
    )
    await rag.initialize_storages()
    documents = Documents(rag, said, embed, complete)
    await documents.repair()
    return rag, documents


async def answers(request: dict[str, Any], documents: Documents) -> list[dict[str, Any]]:
    """The lines that answer one request; the last one has "ok"."""
    if request["do"] == "known":
        known = iter((await documents.known()).items())
        pages: Iterator[dict[str, str]] = iter(lambda: dict(itertools.islice(known, PAGE)), {})
        return [*({"page": page} for page in pages), {"ok": None}]
    outcomes = await documents.ingest([Document(**entry) for entry in request["documents"]])
    return [{"ok": [dataclasses.asdict(outcome) for outcome in outcomes]}]


async def serve(out: Any) -> None:
    def say(line: dict[str, Any]) -> None:
        out.write(json.dumps(line, ensure_ascii=True) + "\n")
        out.flush()

    async def asked() -> dict[str, Any]:
        line = await asyncio.to_thread(sys.stdin.readline)
        request: dict[str, Any] = json.loads(line) if line else {"do": "stop"}
        return request

    rag = None
    try:
        rag, documents = await started(await asked())
        say({"ok": None})
        while (request := await asked())["do"] != "stop":
            try:
                for line in await answers(request, documents):
                    say(line)
            except HybridragError as error:
                say(_said(error))
    except HybridragError as error:
        say(_said(error))
    except Exception as error:  # LightRAG has many; the parent has words for them
        say(
            _said(
                BackendUnavailable(
                    f"LightRAG failed: {type(error).__name__}: {str(error)[:300]}",
                    hint="hybridrag status shows the backend's health",
                )
            )
        )
    finally:
        if rag is not None:
            await rag.finalize_storages()


def _said(error: HybridragError) -> dict[str, Any]:
    return {"error": error.what, "hint": error.hint, "code": error.code}


def main() -> int:
    die_with(int(sys.argv[1]))
    for name in ("httpx", "httpx2", "openai"):  # a line for each call drowns LightRAG's own words
        logging.getLogger(name).setLevel(logging.WARNING)
    answer_to = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answer_to, "w", encoding="utf-8") as out:
        asyncio.run(serve(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
