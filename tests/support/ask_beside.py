"""Open a database whose slots lie in several stores, ask it, insert and delete: a process of its own for each.

python -m tests.support.ask_beside < task.json > answer.json
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from hybridrag.adapters.lightrag_instance import build, variables
from hybridrag.model.selection import Embedding, Selection

from . import make_database
from .ask_database import answers


async def run(task: dict[str, Any]) -> dict[str, Any]:
    selection = Selection(**task["selection"])
    given = make_database.arguments(dim=task["dim"])
    async with variables(selection):
        rag = build(selection, Embedding(model="hash-emb", dim=task["dim"]), **given)
        await rag.initialize_storages()
    found: dict[str, Any] = {"store": type(rag.chunks_vdb).__name__}
    try:
        found["before"] = await answers(rag, task["questions"], task["modes"], task["top_k"])
        if task.get("insert"):
            await rag.ainsert(task["insert"], file_paths=["neu.txt"])
            deletion = await rag.adelete_by_doc_id(task["delete"])
            found["deletion"] = deletion.status
            found["after"] = await answers(rag, task["questions"], task["modes"], task["top_k"])
    finally:
        await rag.finalize_storages()
    return found


if __name__ == "__main__":
    answer_to = os.dup(1)
    os.dup2(2, 1)
    result = asyncio.run(run(json.load(sys.stdin)))
    with os.fdopen(answer_to, "w", encoding="utf-8") as out:
        json.dump(result, out, default=str)
