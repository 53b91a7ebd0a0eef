"""The child process in which LightRAG runs: one database, one task, one answer.

Started by `lightrag_process.py` with a JSON task on stdin (variables and secrets included, so that they
stand neither in argv nor in the initial environment) and answers with one JSON line on stdout. Whatever LightRAG
prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybridrag.adapters.lightrag_instance import build, no_embedding, word_tokenizer
from hybridrag.errors import SpecInvalid
from hybridrag.model.selection import Embedding, Selection


def embedding_function(reference: str, base_dir: str) -> Callable[..., Any]:
    """The async function that `embedding.function` names: `file.py:name` or `package.module:name`."""
    module_name, _, attribute = reference.rpartition(":")
    try:
        if module_name.endswith(".py"):
            path = Path(base_dir, module_name)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise ImportError(f"{path} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, base_dir)
            module = importlib.import_module(module_name)
        function: Callable[..., Any] = getattr(module, attribute)
    except Exception as error:  # whatever the user's module raises is the user's to read
        raise SpecInvalid(
            f'embedding.function "{reference}" cannot be loaded: {type(error).__name__}: {error}',
            hint="write file.py:name (relative to the spec) or package.module:name of an async function",
        ) from None
    return function


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


TASKS = {"schema": make_schema, "query": query}


async def run(task: dict[str, Any]) -> dict[str, Any]:
    os.environ.update(task["variables"])
    function = (
        embedding_function(task["function"], task["base_dir"]) if task.get("function") else no_embedding
    )
    selection = Selection(**task["selection"])
    embedding = Embedding(**task["embedding"])
    rag = build(
        selection, embedding, embedding_func=function, tokenizer=word_tokenizer(), enable_llm_cache=False
    )
    await rag.initialize_storages()
    try:
        return await TASKS[task["task"]](rag, task)
    finally:
        await rag.finalize_storages()


def _die_with(parent: int) -> None:
    """A killed parent must not leave a LightRAG behind that goes on creating tables."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


def main() -> int:
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    answer_to = os.dup(1)
    os.dup2(2, 1)
    task = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"ok": asyncio.run(run(task))}
    except SpecInvalid as error:
        answer = {"error": error.what, "hint": error.hint, "spec": True}
    except Exception as error:  # reported to the parent, which has words for it
        answer = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(answer_to, "w", encoding="utf-8") as out:
        json.dump(answer, out, ensure_ascii=True, default=str)
    return 0


if __name__ == "__main__":
    sys.exit(main())
