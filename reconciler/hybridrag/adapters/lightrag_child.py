"""The child process in which LightRAG runs: one database, one task, one answer.

Started by `lightrag_process.py` with a JSON task on stdin (variables and secrets included, so that they
stand neither in argv nor in the initial environment) and answers with one JSON line on stdout. Whatever LightRAG
prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

from hybridrag.adapters.lightrag_instance import build, no_embedding, no_llm, word_tokenizer
from hybridrag.adapters.lightrag_models import Said, Trouble, completer, embedder
from hybridrag.errors import BackendUnavailable, SpecInvalid
from hybridrag.model.selection import Embedding, Selection


async def make_schema(rag: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Initialising LightRAG creates its tables; nothing more is needed."""
    return {}


async def query(rag: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Retrieve what LightRAG would give a model, without calling one: the question serves as its own keywords."""
    from lightrag import QueryParam

    words = [task["text"]]
    param = QueryParam(
        mode=task["mode"],
        only_need_context=True,
        top_k=task["top_k"],
        hl_keywords=words,
        ll_keywords=words,
        enable_rerank=False,
    )
    data = (await rag.aquery_data(task["text"], param=param)).get("data", {})
    if not any(data.values()):  # LightRAG's context is then an apology, not a context
        return {"context": "", "data": data}
    return {"context": await rag.aquery(task["text"], param=param) or "", "data": data}


async def answer(rag: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Retrieve, and let the language model answer from it."""
    from lightrag import QueryParam

    param = QueryParam(mode=task["mode"], top_k=task["top_k"], enable_rerank=False)
    told = await rag.aquery_llm(task["text"], param=param)
    response = told.get("llm_response") or {}
    found = told.get("data") or {}
    if told.get("status") != "success" and told.get("metadata", {}).get("failure_reason") is None:
        raise RuntimeError(str(told.get("message")))
    text = response.get("content") if response.get("llm_generated") else None
    return {"answer": text, "data": found}


TASKS = {"schema": make_schema, "query": query, "answer": answer}


async def run(task: dict[str, Any]) -> dict[str, Any]:
    os.environ.update(task["variables"])
    selection = Selection(**task["selection"])
    embedding = Embedding(**task["embedding"])
    said = Said()
    models = task.get("models") or {"llm": None, "embedding": None, "function": None}
    rag = build(
        selection,
        embedding,
        embedding_func=embedder(models, embedding, task.get("base_dir", "."), said) or no_embedding,
        llm_model_func=completer(models, said) or no_llm,
        tokenizer=word_tokenizer(),
        enable_llm_cache=False,
    )
    await rag.initialize_storages()
    try:
        return await TASKS[task["task"]](rag, task)
    except Exception:
        raise_for(said)
        raise
    finally:
        await rag.finalize_storages()


def raise_for(said: Said) -> None:
    """Raises what the models said in place of what LightRAG made of it: SpecInvalid or BackendUnavailable."""
    if Trouble.WRONG in said.words:
        raise SpecInvalid(said.words[Trouble.WRONG], hint="look at models and embedding in the spec")
    for kind in (Trouble.LOST, Trouble.REFUSED):
        if kind in said.words:
            raise BackendUnavailable(
                said.words[kind], hint="see that the model server answers, and try again"
            )


def die_with(parent: int) -> None:
    """A killed parent must not leave a LightRAG behind that goes on writing. `parent`: its process id."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    die_with(int(sys.argv[1]))
    answer_to = os.dup(1)
    os.dup2(2, 1)
    task = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"ok": asyncio.run(run(task))}
    except (SpecInvalid, BackendUnavailable) as error:
        answer = {"error": error.what, "hint": error.hint, "code": error.code}
    except Exception as error:  # reported to the parent, which has words for it
        answer = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(answer_to, "w", encoding="utf-8") as out:
        json.dump(answer, out, ensure_ascii=True, default=str)
    return 0


if __name__ == "__main__":
    sys.exit(main())
