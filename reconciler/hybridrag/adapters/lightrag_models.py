"""The models of a spec as the functions that LightRAG calls, and what those models refused.

Used inside a child process, and by `hybridrag.open()`. The calls themselves are LightRAG's own bindings.
"""

from __future__ import annotations

import asyncio
import enum
import importlib
import importlib.util
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridrag.errors import SpecInvalid
from hybridrag.model.selection import Embedding
from hybridrag.model.watching import Model, Models

Call = Callable[..., Awaitable[Any]]
_UNREACHABLE = {"APIConnectionError", "APITimeoutError", "ConnectError", "ReadError", "RemoteProtocolError"}
"""Classes of openai, httpx and LightRAG, by name: none of them has to be installed."""


class Trouble(enum.Enum):
    """LOST: the server is away or overloaded. WRONG: the spec must change. REFUSED: this request alone."""

    LOST = "lost"
    WRONG = "wrong"
    REFUSED = "refused"


@dataclass(slots=True)
class Said:
    """What the models refused since `forget`, the newest of each kind."""

    words: dict[Trouble, str] = field(default_factory=dict)

    def forget(self) -> None:
        self.words.clear()

    def watched(self, function: Call, title: str) -> Call:
        """The function, with its errors noted and passed on."""

        async def call(*args: Any, **more: Any) -> Any:
            try:
                return await function(*args, **more)
            except Exception as error:
                kind, text = sorted_error(error)
                self.words[kind] = text if kind is Trouble.WRONG else f"{title}: {text}"
                raise

        return call


def sorted_error(error: BaseException) -> tuple[Trouble, str]:
    """What an error of a model means, and one line about it."""
    attempt = getattr(error, "last_attempt", None)  # tenacity's RetryError hides the reason
    cause: BaseException = (attempt.exception() if attempt is not None else None) or error
    if isinstance(cause, SpecInvalid):
        return Trouble.WRONG, cause.what
    lines = str(cause).strip().splitlines()
    text = f"{type(cause).__name__}: {lines[0][:200] if lines else 'no words'}"
    status = getattr(cause, "status_code", None)
    if status in (401, 403, 404):
        return Trouble.WRONG, f"the model server refuses the key, or does not know the model ({text})"
    if isinstance(status, int) and status > 0:
        lost = status in (408, 409, 425, 429) or status >= 500
        return (Trouble.LOST if lost else Trouble.REFUSED), text
    if isinstance(cause, (OSError, asyncio.TimeoutError)) or type(cause).__name__ in _UNREACHABLE:
        return Trouble.LOST, text
    names = {base.__name__ for base in type(cause).__mro__}
    return (Trouble.LOST if names & _UNREACHABLE else Trouble.REFUSED), text


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


def message(models: Models) -> dict[str, Any]:
    """The models as JSON for a child's stdin, keys revealed. Raises SpecInvalid where a key is not to be had."""
    return {
        "llm": _message(models.llm),
        "embedding": None if models.function else _message(models.embedding),
        "function": models.function,
    }


def _message(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {
        "binding": model.binding,
        "name": model.name,
        "base_url": model.base_url,
        "key": model.key() if model.key else None,
    }


def completer(models: Mapping[str, Any], said: Said) -> Call | None:
    """The function that LightRAG asks for text, or None where the spec names no model."""
    told = models["llm"]
    if told is None:
        return None
    module = _binding(told, "models.llm")
    if told["binding"] == "openai":
        access = {"base_url": told["base_url"], "api_key": _openai_key(told, "models.llm")}
        function = module.openai_complete_if_cache
    else:
        access = {"host": told["base_url"], "api_key": told["key"]}
        function = module._ollama_model_if_cache

    async def complete(
        prompt: str,
        system_prompt: str | None = None,
        history_messages: list[dict[str, Any]] | None = None,
        **more: Any,
    ) -> Any:
        return await function(
            told["name"],
            prompt,
            system_prompt=system_prompt,
            history_messages=history_messages or [],
            **{**more, **access},
        )

    return said.watched(complete, f'the language model "{told["name"]}"')


def embedder(models: Mapping[str, Any], space: Embedding, base_dir: str, said: Said) -> Call | None:
    """The function that makes vectors of the database's own dimension, or None where nothing is named."""
    told = models["embedding"]
    if models["function"]:
        function = embedding_function(models["function"], base_dir)
        title = f'embedding.function "{models["function"]}"'
    elif told is None:
        return None
    else:
        if not space.model:
            raise SpecInvalid(
                "the database names no embedding model", hint="set databases.….embedding.model in the spec"
            )
        module = _binding(told, "models.embedding")
        title = f'the embedding model "{space.model}"'
        if told["binding"] == "openai":
            function = _openai_embedder(module, told, space.model)
        else:
            function = _ollama_embedder(module, told, space.model)

    async def embed(texts: list[str], **_: Any) -> Any:
        import numpy as np

        rows = np.asarray(await function(texts))
        if rows.ndim != 2 or rows.shape[1] != space.dim:
            raise SpecInvalid(
                f"{title} answers with vectors of {rows.shape[-1] if rows.ndim else 0} dimensions, "
                f"but the database has {space.dim}",
                hint="the model must be the one that made the database's vectors; set embedding.model and embedding.dim",
            )
        return rows

    return said.watched(embed, title)


def _openai_embedder(module: Any, told: Mapping[str, Any], model: str) -> Call:
    key = _openai_key(told, "models.embedding")

    async def embed(texts: list[str]) -> Any:
        return await module.openai_embed.func(texts, model=model, base_url=told["base_url"], api_key=key)

    return embed


def _ollama_embedder(module: Any, told: Mapping[str, Any], model: str) -> Call:
    async def embed(texts: list[str]) -> Any:
        return await module.ollama_embed.func(
            texts, embed_model=model, host=told["base_url"], api_key=told["key"]
        )

    return embed


def _binding(told: Mapping[str, Any], key: str) -> Any:
    """LightRAG's module of a binding. It would install a missing package by itself, unasked."""
    name = told["binding"]
    if importlib.util.find_spec(name) is None:
        raise SpecInvalid(
            f'{key} needs the package "{name}", which is not installed',
            hint='pip install "hybridrag-reconciler[watch]"',
        )
    return importlib.import_module(f"lightrag.llm.{name}")


def _openai_key(told: Mapping[str, Any], key: str) -> str:
    """The spec's key. A key of the environment is never sent to a server that the spec names."""
    given = told["key"] or (None if told["base_url"] else os.environ.get("OPENAI_API_KEY"))
    if given:
        return str(given)
    if told["base_url"]:
        return "none"  # the client insists on one; a server of one's own rarely does
    raise SpecInvalid(f"{key} has no key", hint=f"set {key}.api_key: {{env: OPENAI_API_KEY}} in the spec")
