"""Run LightRAG in a child process of its own: one database each, because it keeps process-wide state."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Collection, Mapping
from typing import Any

from hybridrag.errors import BackendUnavailable, SpecInvalid
from hybridrag.model.said import said
from hybridrag.model.secret import without
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.watching import Models

from .lightrag_instance import FOREIGN, require_files
from .lightrag_models import message

TIMEOUT_S = 180.0
AT_ONCE = {"POSTGRES_CONNECTION_RETRIES": "1"}
"""A lost server is an error at once. LightRAG's own default is ten attempts in four minutes, and LightRAG 1.5.7 waits for a
lock of its own, for ever, when it tries a second time to rebuild a lost pool."""
_MODULE = "hybridrag.adapters.lightrag_child"


async def start(
    module: str, folder: str, env: Mapping[str, str], *, inherit: Collection[int] = (), limit: int = 1 << 16
) -> asyncio.subprocess.Process:
    """A child that is given its work over pipes, and ends with us. `folder` should be empty: LightRAG looks into it."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=env,
        pass_fds=inherit,
        limit=limit,
    )


async def ask(
    task_name: str,
    selection: Selection,
    embedding: Embedding,
    *,
    models: Models | None = None,
    environ: Mapping[str, str] = os.environ,
    **more: Any,
) -> dict[str, Any]:
    """The child's answer to one task. Raises BackendUnavailable with LightRAG's own words, secrets removed.

    `environ` is the child's environment (the spec's, so that a user's embedding function finds its key), less what
    would steer LightRAG.

    Raises NotFound instead of letting LightRAG begin a new database in a folder without one.
    """
    require_files(selection)
    task, secrets = task_for(selection, embedding, models, task=task_name, **more)
    # An empty working folder: LightRAG would take config.ini and .env from there, and writes its log into it.
    with tempfile.TemporaryDirectory(prefix="hybridrag-") as folder:
        process = await start(_MODULE, folder, environment(environ))
        try:
            out, log = await asyncio.wait_for(process.communicate(json.dumps(task).encode()), TIMEOUT_S)
        except asyncio.TimeoutError:
            raise BackendUnavailable(
                f"LightRAG did not finish its task ({task_name}) within {TIMEOUT_S:.0f} s",
                hint="hybridrag status shows the backend's health; then run the command again",
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    return _answer(task_name, out, log, secrets)


def task_for(
    selection: Selection, embedding: Embedding, models: Models | None, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    """What a child is told, and the secrets in it. Raises SpecInvalid where a secret is not to be had."""
    secrets = {name: get() for name, get in selection.secrets.items()}
    told = message(models) if models else None
    keys = [entry["key"] for entry in (told["llm"], told["embedding"]) if entry] if told else []
    task = {
        "variables": {**AT_ONCE, **selection.variables, **secrets},
        "selection": {
            "kv": selection.kv,
            "vector": selection.vector,
            "graph": selection.graph,
            "doc_status": selection.doc_status,
            "working_dir": selection.working_dir,
            "workspace": selection.workspace,
        },
        "embedding": {"model": embedding.model, "dim": embedding.dim},
        "models": told,
        **more,
    }
    return task, [value for value in (*secrets.values(), *keys) if value]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """A child's environment: the spec's, less what would steer LightRAG away from its store."""
    return {name: value for name, value in environ.items() if not FOREIGN.match(name)}


def _answer(task: str, out: bytes, log: bytes, secrets: list[str]) -> dict[str, Any]:
    try:
        answer = json.loads(out)
    except ValueError:
        tail = " | ".join(log.decode("utf-8", "replace").strip().splitlines()[-3:])
        answer = {"error": f"its process died: {tail}"}
    if "error" in answer:
        text = without(str(answer["error"]), secrets)
        hint = without(str(answer.get("hint") or ""), secrets) or None
        if answer.get("code") == SpecInvalid.code:
            raise SpecInvalid(text, hint=hint)
        if answer.get("code") == BackendUnavailable.code:
            raise BackendUnavailable(text, hint=hint)
        raise BackendUnavailable(
            f"LightRAG failed ({task}): {said(text)}", hint="hybridrag status shows the backend's health"
        )
    result: dict[str, Any] = answer["ok"]
    return result


class LightRagSchema:
    """`model.ports.SchemaMaker`: LightRAG creates its own tables, as it would at its first start."""

    async def create(self, selection: Selection, embedding: Embedding) -> None:
        await ask("schema", selection, embedding)
