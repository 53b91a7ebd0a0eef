"""Build a LightRAG instance on a store. Used inside a child process, and by `hybridrag.open()`.

LightRAG reads connection values from process variables, keeps one Postgres pool per process
(`postgres_impl.py`, ClientManager), and downloads a tokenizer unless it is given one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from hybridrag.errors import NotFound, PlanRefused
from hybridrag.model.selection import Embedding, Selection

FOREIGN = re.compile(
    r"^(POSTGRES_|PGSSL|PGTARGETSESSIONATTRS|LIGHTRAG_|NEO4J_|MONGO|MILVUS_|QDRANT_|REDIS_|MEMGRAPH_|OPENSEARCH_)|^(\w+_)?WORKSPACE$|"
    r"^(WORKING_DIR|INPUT_DIR|LOG_DIR|EMBEDDING_DIM|EMBEDDING_MODEL)$"
)
"""Variables that would steer LightRAG away from the store it is meant for."""
_guard = asyncio.Lock()
_claimed: dict[str, Mapping[str, str]] = {}


class WordTokenizer:
    """Cuts text into words, long ones into pieces of about a token of a real model; needs no download.

    A token is the piece itself as a number, so that nothing is remembered and threads may share it.
    """

    _PIECE = re.compile(
        r"\s*[A-Za-z]{1,6}|\s*[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\s*\w{1,3}|\s*[^\w\s]|\s+"
    )

    def encode(self, content: str) -> list[int]:
        pieces = self._PIECE.findall(content)
        return [int.from_bytes(b"\1" + piece.encode("utf-8", "surrogatepass"), "big") for piece in pieces]

    def decode(self, tokens: list[int]) -> str:
        pieces = [token.to_bytes((token.bit_length() + 7) // 8, "big")[1:] for token in tokens]
        return b"".join(pieces).decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: object) -> WordTokenizer:
        return self


async def no_embedding(texts: list[str], **_: Any) -> Any:
    """Stands in where nothing may be embedded: a migration never pays for an embedding."""
    raise RuntimeError("an embedding was asked for where none may be made")


async def no_llm(*_: Any, **__: Any) -> str:
    """Stands in where no model was given."""
    raise RuntimeError(
        "a language model was asked for, but none was given: set models.llm in the spec, or pass llm_model_func=…"
    )


def _classes(selection: Selection) -> tuple[str, str, str, str]:
    """(kv, vector, graph, doc status); a slot that the store does not hold is kept in files of the working folder."""
    return (
        selection.kv or "JsonKVStorage",
        selection.vector or "NanoVectorDBStorage",
        selection.graph or "NetworkXStorage",
        selection.doc_status or "JsonDocStatusStorage",
    )


def load_modules(selection: Selection) -> None:
    """Import LightRAG with the store's classes: several of these modules read .env of the current folder when loaded."""
    from lightrag.kg import STORAGES

    importlib.import_module("lightrag.lightrag")  # the package itself imports it on first use
    for name in _classes(selection):
        importlib.import_module(STORAGES[name], package="lightrag")


@contextlib.asynccontextmanager
async def variables(selection: Selection) -> AsyncIterator[None]:
    """Set the store's variables for a block, and put the old ones back, all but those of TLS."""
    wanted = {**selection.variables, **{name: get() for name, get in selection.secrets.items()}}
    load_modules(selection)  # before the block: what a .env adds must not steer LightRAG within it
    async with _guard:
        before = dict(os.environ)
        try:
            for name in [name for name in os.environ if FOREIGN.match(name)]:
                del os.environ[name]
            os.environ.update(wanted)
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            # asyncpg reads these for each new connection of LightRAG's pool, which grows later.
            os.environ.update({k: v for k, v in wanted.items() if k.startswith("PGSSL")})


def require_files(selection: Selection) -> None:
    """Raises NotFound where LightRAG would create an empty database in a folder that holds none."""
    folder = selection.working_dir
    if folder is not None and not any(Path(folder).glob("kv_store_*.json")):
        raise NotFound(
            f'the folder "{folder}" holds no LightRAG database (no kv_store_*.json)',
            hint="hybridrag status shows what is where",
        )


def claim_process(selection: Selection) -> None:
    """Refuse a second store of a kind in one process: LightRAG would silently read the first one.

    It keeps one Postgres pool, which fixes server and workspace, and one copy of each JSON store in memory,
    by workspace and not by folder.
    """
    if selection.working_dir is not None:
        kind = f'JSON, workspace "{selection.workspace}"'
        place: Mapping[str, str] = {"folder": str(Path(selection.working_dir).resolve())}
    else:
        kind = "Postgres"
        place = {k: v for k, v in selection.variables.items() if k != "POSTGRES_MAX_CONNECTIONS"}
    first = _claimed.setdefault(kind, place)
    if first != place:
        apart = ", ".join(sorted(v for k, v in first.items() if place.get(k) != v)) or "other settings"
        raise PlanRefused(
            f"this process has opened another LightRAG database on {kind.partition(',')[0]} before ({apart}), "
            "and LightRAG would go on reading that one",
            hint="open the second database in a process of its own",
        )


def build(selection: Selection, embedding: Embedding, **given: Any) -> Any:
    """A LightRAG object, not yet initialised. `given` overrides its constructor's arguments."""
    from lightrag import LightRAG
    from lightrag.utils import EmbeddingFunc

    function = given.pop("embedding_func", None) or no_embedding
    if not isinstance(function, EmbeddingFunc):
        function = EmbeddingFunc(
            embedding_dim=embedding.dim, max_token_size=8192, func=function, model_name=embedding.model
        )
    kv, vector, graph, doc_status = _classes(selection)
    arguments: dict[str, Any] = {
        "working_dir": selection.working_dir or ".",
        "workspace": selection.workspace,
        "kv_storage": kv,
        "vector_storage": vector,
        "graph_storage": graph,
        "doc_status_storage": doc_status,
        "llm_model_func": no_llm,
        "embedding_func": function,
    }
    return LightRAG(**{**arguments, **given})


def word_tokenizer() -> Any:
    """The tokenizer above in LightRAG's wrapper."""
    from lightrag.utils import Tokenizer

    return Tokenizer("words", WordTokenizer())
