"""Notes of ours about a workspace in Milvus: rows of the ledger collection; see `model.notes`."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence

from hybridrag.errors import BackendUnavailable
from hybridrag.model.notes import Note, Notes, in_use, overtaken

from . import ledger
from .client import Connection, Endpoint, connection, quoted
from .collections import LEDGER
from .lock import Lock


def _prefix(workspace: str) -> str:
    return f"note:{workspace}:"


async def read_notes(endpoint: Endpoint, workspaces: Sequence[str]) -> list[Notes]:
    """The notes of some workspaces, in this order. Raises BackendUnavailable."""
    async with connection(endpoint) as opened:
        if not await _readable(opened):
            return [{} for _ in workspaces]
        return [await _of(opened, workspace) for workspace in workspaces]


async def _readable(opened: Connection) -> bool:
    return bool(await opened.call("has_collection", LEDGER)) and await opened.loaded(LEDGER)


async def _of(opened: Connection, workspace: str) -> dict[str, Note]:
    prefix = _prefix(workspace)
    rows = await ledger.rows(opened, prefix)
    return {
        key.removeprefix(prefix): Note(int(row["revision"]), str(row["document"]))
        for key, row in rows.items()
    }


async def put_note(endpoint: Endpoint, workspace: str, name: str, note: Note) -> None:
    """See `Store.put_note`. Milvus has no compare-and-swap: the note is read before it is written."""
    async with connection(endpoint, patience_s=10) as opened:
        await ledger.create(opened)
        if not note.replaces((await _of(opened, workspace)).get(name)):
            raise overtaken(f'workspace "{workspace}" in backend "{endpoint.name}"')
        document = {"revision": note.revision, "document": note.document}
        await ledger.put(opened, _prefix(workspace) + name, document)


async def drop_note(endpoint: Endpoint, workspace: str, name: str) -> None:
    """See `Store.drop_note`."""
    async with connection(endpoint, patience_s=10) as opened:
        if await _readable(opened):
            await opened.call("delete", LEDGER, filter=f"id == {quoted(_prefix(workspace) + name)}")


async def _ours(opened: Connection, key: str) -> bool:
    """Whether this very process holds a claim."""
    claims = await ledger.rows(opened, f"claim:{key}:")
    return any((each["host"], each["pid"]) == (socket.gethostname(), os.getpid()) for each in claims.values())


@contextlib.asynccontextmanager
async def claimed(endpoint: Endpoint, workspace: str, name: str) -> AsyncIterator[None]:
    """See `Store.claimed`."""
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(BackendUnavailable):  # the run itself says why it cannot be used
            opened = await stack.enter_async_context(connection(endpoint))
            await ledger.create(opened)
            key = f"run:{workspace}:{name}"
            if await _ours(opened, key):
                yield  # through another entry of the spec that leads here
                return
            lock = Lock(opened, key)
            if not await lock.take():
                raise in_use(f'workspace "{workspace}" in backend "{endpoint.name}"', "")
            stack.push_async_callback(lock.release)
        yield
