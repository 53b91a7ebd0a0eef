"""Connections to Milvus: opened here and nowhere else, with errors in words and secrets kept out of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hybridrag.errors import BackendUnavailable
from hybridrag.model.said import said
from hybridrag.model.secret import Secret

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 60.0
SLOW_TIMEOUT_S = 900.0
"""Flushing and index building: as long as a large collection needs."""
GRPC = {"grpc.keepalive_time_ms": 300_000}
"""pymilvus asks an idle server every 10 s whether it lives; one with gRPC's defaults ends such a connection after 20 s."""
_UNREACHABLE = ("fail connecting", "unavailable", "closed channel", "connection refused", "connection reset")
_DENIED = ("auth check", "unauthenticated", "username and password", "api key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server is and who we are there. `password` and `token` are called at connect time only."""

    name: str
    uri: str
    database: str
    user: str | None
    password: Callable[[], Secret | None]
    token: Callable[[], Secret | None]


@functools.cache
def driver() -> Any:
    """The client library. Raises BackendUnavailable where it is not installed."""
    # gRPC would start its threads in every process that is forked from here, even one that only becomes another program.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # While it is imported, it reads these variables and refuses the path of a file in MILVUS_URI.
    taken = {name: os.environ.pop(name) for name in ("MILVUS_URI", "MILVUS_CONN_ALIAS") if name in os.environ}
    try:
        library = importlib.import_module("pymilvus")
    except ImportError:
        raise BackendUnavailable(
            "the Python package pymilvus is not installed", hint="pip install 'hybridrag-reconciler[milvus]'"
        ) from None
    finally:
        os.environ.update(taken)
    # It logs every failure with a traceback and the request in it; what a user should know is raised.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    return library


def explain(error: BaseException, endpoint: Endpoint) -> BackendUnavailable:
    """The error of a failed call in words, with the next thing to do."""
    who = f'backend "{endpoint.name}" (milvus at {endpoint.uri})'
    text = " ".join(said(getattr(error, "message", "") or error).split())
    words = text.lower()
    if any(part in words for part in _DENIED):
        login = f'the password of user "{endpoint.user}"' if endpoint.user else "the login"
        return BackendUnavailable(
            f"{who} refuses {login}",
            hint=f"correct backends.{endpoint.name}.user and .password (or .token) in the spec, then run hybridrag plan",
        )
    if "database" in words and ("not exist" in words or "not found" in words):
        return BackendUnavailable(
            f'{who} has no database "{endpoint.database}"',
            hint=f'create it there (client.create_database("{endpoint.database}")), or correct '
            f"backends.{endpoint.name}.database",
        )
    if getattr(error, "code", None) == 2 or any(part in words for part in _UNREACHABLE):
        return BackendUnavailable(
            f"{who} cannot be reached",
            hint=f"start the server, or correct backends.{endpoint.name}.uri; then run the command again",
        )
    if "deadline" in words or "timeout" in words or "retry" in words:
        return BackendUnavailable(
            f"{who} did not answer in time",
            hint="see its log and that it runs (hybridrag status); then hybridrag apply goes on from the checkpoint",
        )
    return BackendUnavailable(f"{who} answered: {text}", hint="see the server's log, then run hybridrag plan")


class Connection:
    """One client, whose blocking calls run one after another in a thread of its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hybridrag-milvus")
        self._client: Any = None

    @property
    def backend(self) -> str:
        """Its name in the spec."""
        return self._endpoint.name

    def _open(self) -> None:
        endpoint = self._endpoint
        password, token = endpoint.password(), endpoint.token()
        self._client = driver().MilvusClient(
            uri=endpoint.uri,
            user=endpoint.user or "",
            password=password.reveal() if password else "",
            token=token.reveal() if token else "",
            db_name=endpoint.database,
            timeout=CONNECT_TIMEOUT_S,
            dedicated=True,  # a shared channel stays dead for 30 s when its server comes back
            grpc_options=GRPC,
        )

    async def open(self, patience_s: float) -> None:
        """Connect; a server that cannot be reached is tried again for `patience_s` seconds."""
        driver()
        deadline = time.monotonic() + patience_s
        while True:
            try:
                await self._run(self._open)
                return
            except BackendUnavailable as error:
                if "reached" not in error.what or time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.5)

    async def _run(self, work: Callable[[], Any]) -> Any:
        import grpc

        library = driver()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (library.MilvusException, grpc.RpcError, ValueError, OSError) as error:
            raise explain(error, self._endpoint) from None

    async def call(self, method: str, *args: Any, timeout: float = CALL_TIMEOUT_S, **given: Any) -> Any:
        """One method of the client. Raises BackendUnavailable for whatever the server answers but a result."""
        return await self._run(lambda: getattr(self._client, method)(*args, timeout=timeout, **given))

    async def query(self, collection: str, where: str, fields: list[str], limit: int) -> list[dict[str, Any]]:
        """Rows in the order of their ids, as of now. `where` is a filter; ids in it need `quoted`.

        The library's own iterator does not quote the id it goes on from; the server is asked as it does.
        """
        rows = await self.call(
            "query",
            collection,
            filter=where,
            output_fields=fields,
            limit=limit,
            consistency_level="Strong",
            iterator="True",
            reduce_stop_for_best="True",
        )
        return list(rows)

    async def count(self, collection: str) -> int:
        """Rows of a collection, as of now; what the server last sealed when it is not loaded."""
        if await self.loaded(collection):
            rows = await self.call(
                "query", collection, filter="", output_fields=["count(*)"], consistency_level="Strong"
            )
            return int(rows[0]["count(*)"])
        return int((await self.call("get_collection_stats", collection))["row_count"])

    async def loaded(self, collection: str) -> bool:
        state = (await self.call("get_load_state", collection))["state"]
        return bool(state == driver().client.types.LoadState.Loaded)

    async def close(self) -> None:
        """Wait for the call that may still run, then close."""
        if self._client is not None:
            with contextlib.suppress(Exception):  # a dead channel cannot be closed
                await asyncio.get_running_loop().run_in_executor(self._thread, self._client.close)
        await asyncio.to_thread(self._thread.shutdown)


@contextlib.asynccontextmanager
async def connection(endpoint: Endpoint, *, patience_s: float = 0.0) -> AsyncIterator[Connection]:
    """A connection, closed at the end. Raises BackendUnavailable for anything that goes wrong with the server."""
    opened = Connection(endpoint)
    try:
        await opened.open(patience_s)
        yield opened
    finally:
        await opened.close()


def quoted(text: str) -> str:
    """A literal of the filter language; control characters are refused before (`rows.py`)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
