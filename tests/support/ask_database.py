"""Open one database through `hybridrag.open` and use it: a process of its own, because LightRAG keeps state in one.

    python -m tests.support.ask_database JOB < arguments.json > answer.json

Every job gets `spec` (path of hybridrag.yaml). No model is given unless a job edits: LightRAG asking for one fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import hybridrag
from hybridrag.errors import HybridragError, PlanRefused

from . import make_database

WIDE = 1_000_000
"""A token budget that cuts nothing; lightrag-server accepts no wider one."""


def asked_of_server(question: dict[str, str], mode: str, top_k: int) -> dict[str, Any]:
    """The body of `/query/data` that asks the same as `answers` does."""
    return {
        "query": question["text"],
        "mode": mode,
        "ll_keywords": [question["low"]],
        "hl_keywords": [question["high"]],
        "top_k": top_k,
        "chunk_top_k": top_k,
        "max_entity_tokens": WIDE,
        "max_relation_tokens": WIDE,
        "max_total_tokens": WIDE,
        "enable_rerank": False,
    }


def offline(*, model: bool) -> dict[str, Any]:
    """Constructor arguments; the embedding function stays the one that the spec names."""
    given = make_database.arguments(dim=96)
    del given["embedding_func"]
    if not model:
        del given["llm_model_func"]
    return given


async def answers(rag: Any, questions: list[dict[str, str]], modes: list[str], top_k: int) -> dict[str, Any]:
    """`aquery_data` for every question in every mode: `{"mode: text": data}`."""
    from lightrag import QueryParam

    found = {}
    for question in questions:
        for mode in modes:
            param = QueryParam(
                mode=mode,
                top_k=top_k,
                chunk_top_k=top_k,
                max_entity_tokens=WIDE,
                max_relation_tokens=WIDE,
                max_total_tokens=WIDE,
                ll_keywords=[question["low"]],
                hl_keywords=[question["high"]],
                enable_rerank=False,
            )
            result = await rag.aquery_data(question["text"], param=param)
            found[f"{mode}: {question['text']}"] = result["data"]
    return found


def name_of(row: dict[str, Any]) -> str:
    """The identity of a hit, the same on every backend: an edge has no direction."""
    if "src_id" in row:
        return " — ".join(sorted((row["src_id"], row["tgt_id"])))
    return row.get("entity_name") or row["id"]


async def rankings(rag: Any, questions: list[dict[str, str]]) -> dict[str, list[tuple[str, float | None]]]:
    """All that a vector store finds above LightRAG's threshold, in its order; the score where the store tells it."""
    found = {}
    for question in questions:
        for store in (rag.entities_vdb, rag.relationships_vdb, rag.chunks_vdb):
            rows = await store.query(question["text"], top_k=1000)
            found[f"{store.namespace}: {question['text']}"] = [
                (name_of(row), row.get("distance")) for row in rows
            ]
    return found


async def ask(task: dict[str, Any]) -> dict[str, Any]:
    """Which storages serve, what they answer and how they rank."""
    async with hybridrag.open(hybridrag.load(task["spec"]), "notes", **offline(model=False)) as rag:
        return {
            "storages": [type(rag.full_docs).__name__, type(rag.chunks_vdb).__name__],
            "answers": await answers(rag, task["questions"], task["modes"], task["top_k"]),
            "rankings": await rankings(rag, task["questions"]),
        }


async def edit(task: dict[str, Any]) -> dict[str, Any]:
    """Insert a document and delete another one as an application would, then ask; every tracked fact with it."""
    async with hybridrag.open(hybridrag.load(task["spec"]), "notes", **offline(model=True)) as rag:
        await rag.ainsert(task["insert"], file_paths=[task["file"]])
        deletion = await rag.adelete_by_doc_id(task["delete"])
        if entity := task.get("entity"):
            assert (await rag.adelete_by_entity(entity)).status == "success"
        counts = await rag.get_processing_status()
        nodes = sorted(await rag.get_graph_labels())
        tracked = await rag.entity_chunks.get_by_ids(nodes)
        new = await rag.doc_status.get_doc_by_file_path(task["file"])
        return {
            "deletion": deletion.status,
            "counts": counts,
            "status": str(getattr(new["status"], "value", new["status"])),
            "deleted_status": await rag.doc_status.get_by_id(task["delete"]),
            "deleted_document": await rag.full_docs.get_by_id(task["delete"]),
            "deleted_chunks": [
                row
                for store in (rag.text_chunks, rag.chunks_vdb)
                for row in await store.get_by_ids(task["delete_chunks"])
                if row
            ],
            "nodes": nodes,
            "entity_chunks": [row and sorted(row["chunk_ids"]) for row in tracked],
            "answers": await answers(rag, task["questions"], task["modes"], task["top_k"]),
        }


async def move(task: dict[str, Any]) -> dict[str, Any]:
    """All in one process, by the Python interface: ask on JSON, plan, apply, ask on Postgres; nothing left to do."""
    env = hybridrag.load(task["spec"])
    found = []
    for _ in range(2):
        async with hybridrag.open(env, "notes", **offline(model=False)) as rag:
            found.append(await answers(rag, task["questions"], task["modes"], task["top_k"]))
            found.append(type(rag.full_docs).__name__)
        plan = await hybridrag.plan(env)
        if plan.steps:
            await hybridrag.apply(plan)
    return {"found": found, "left": len(plan.steps)}


async def two(task: dict[str, Any]) -> dict[str, Any]:
    """Open the first database, try the second one meanwhile and afterwards, and use the first one again."""
    env = hybridrag.load(task["spec"])
    refused = []

    async def second() -> None:
        try:
            async with hybridrag.open(env, task["second"], **offline(model=False)):
                refused.append(None)
        except PlanRefused as error:
            refused.append(str(error))

    async with hybridrag.open(env, task["first"], **offline(model=False)) as rag:
        await second()
        nodes = sorted(await rag.get_graph_labels())
    await second()
    async with hybridrag.open(env, task["first"], **offline(model=False)) as rag:
        again = sorted(await rag.get_graph_labels())
    return {"refused": refused, "nodes": nodes, "again": again}


async def fail(task: dict[str, Any]) -> dict[str, Any]:
    """Open where there is nothing to open."""
    try:
        async with hybridrag.open(hybridrag.load(task["spec"]), "notes", **offline(model=False)):
            return {"error": None}
    except HybridragError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    answer_to = os.dup(1)
    os.dup2(2, 1)
    given = json.load(sys.stdin)
    os.chdir(Path(given["spec"]).parent)
    jobs = {"ask": ask, "edit": edit, "fail": fail, "move": move, "two": two}
    answer = asyncio.run(jobs[sys.argv[1]](given))
    with os.fdopen(answer_to, "w", encoding="utf-8") as out:
        json.dump(answer, out, default=str)
