"""Notes of ours beside a workspace in Postgres, in the ledger's schema; see `model.notes`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import asyncpg

from hybridrag.errors import BackendUnavailable
from hybridrag.model.fence import CURRENT
from hybridrag.model.notes import Note, Notes, in_use, overtaken

from . import fencing
from .client import connection
from .endpoint import Endpoint
from .failures import NoSuchDatabase
from .fencing import session_name
from .ledger import VISIBLE

_DDL = f"""
CREATE SCHEMA IF NOT EXISTS hybridrag_ledger;
CREATE TABLE IF NOT EXISTS hybridrag_ledger.note (
    workspace  text NOT NULL,
    name       text NOT NULL,
    revision   bigint NOT NULL,
    document   text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);
{fencing.DDL}
"""
_PUT = f"""
INSERT INTO hybridrag_ledger.note AS known (workspace, name, revision, document)
SELECT $1, $2, $3, $4 WHERE {fencing.HOLDS.format(state="$5", number="$6")}
ON CONFLICT (workspace, name) DO UPDATE
SET revision = excluded.revision, document = excluded.document, updated_at = now()
WHERE known.revision < excluded.revision OR known.document = excluded.document
RETURNING true
"""
_CLAIM = "SELECT pg_try_advisory_lock(hashtext('hybridrag run'), hashtext($1))"
_HOLDER = """
SELECT a.application_name || ' from ' || coalesce(host(a.client_addr), 'this machine')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted
  AND l.classid::bigint = (hashtext('hybridrag run')::bigint & 4294967295)
  AND l.objid::bigint = (hashtext($1)::bigint & 4294967295)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
AT_ONCE = 4
PATIENCE_S = 1.5
Place = tuple[Endpoint, str]
"""A server's database, and a workspace in it."""


async def read_notes(places: Sequence[Place]) -> list[Notes]:
    """The notes of some workspaces of one server, in this order. Raises BackendUnavailable."""
    gate = asyncio.Semaphore(AT_ONCE)
    together: dict[str, list[int]] = {}
    for index, (endpoint, _) in enumerate(places):
        together.setdefault(endpoint.database, []).append(index)
    found: list[Notes] = [{} for _ in places]

    async def look(chosen: Sequence[int]) -> None:
        async with gate:
            notes = await _in_database(places[chosen[0]][0], sorted({places[index][1] for index in chosen}))
        for index in chosen:
            found[index] = notes.get(places[index][1], {})

    await asyncio.gather(*map(look, together.values()))
    return found


async def _in_database(endpoint: Endpoint, workspaces: Sequence[str]) -> dict[str, dict[str, Note]]:
    found: dict[str, dict[str, Note]] = {}
    try:
        async with connection(endpoint, purpose="observe", read_only=True) as opened:
            if not await opened.fetchval(VISIBLE, "note"):
                return {}
            rows = await opened.fetch(
                "SELECT workspace, name, revision, document FROM hybridrag_ledger.note WHERE workspace = ANY($1)",
                workspaces,
            )
    except NoSuchDatabase:
        if endpoint.home is None:
            raise
        return {}  # its own database is made by the first copy
    for row in rows:
        found.setdefault(row["workspace"], {})[row["name"]] = Note(row["revision"], row["document"])
    return found


async def put_note(endpoint: Endpoint, workspace: str, name: str, note: Note) -> None:
    """See `Store.put_note`."""
    fence = CURRENT.get()
    shown = (fence.state, fence.number) if fence else ("", 0)
    async with (
        connection(endpoint, purpose="mark", read_only=False, patience_s=10) as opened,
        opened.transaction(),
    ):
        await opened.execute("SELECT pg_advisory_xact_lock(hashtext('hybridrag ledger'))")
        if not await opened.fetchval(VISIBLE, "note"):
            await opened.execute(_DDL)
        put = await opened.fetchval(_PUT, workspace, name, note.revision, note.document, *shown)
    if not put:
        if fence is not None:
            fence.check()
        raise overtaken(f'workspace "{workspace}" in backend "{endpoint.name}"')


async def drop_note(endpoint: Endpoint, workspace: str, name: str) -> None:
    """See `Store.drop_note`."""
    try:
        async with connection(endpoint, purpose="mark", read_only=False, patience_s=10) as opened:
            if await opened.fetchval(VISIBLE, "note"):
                await opened.execute(
                    "DELETE FROM hybridrag_ledger.note WHERE workspace = $1 AND name = $2", workspace, name
                )
    except NoSuchDatabase:
        return


@contextlib.asynccontextmanager
async def claimed(endpoint: Endpoint, workspace: str, name: str) -> AsyncIterator[None]:
    """See `Store.claimed`: an advisory lock of a session of its own, which ends with it."""
    key = f"{workspace} {name}"
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(
            BackendUnavailable
        ):  # a server that is to be made, or started, by this very run
            opened = await stack.enter_async_context(
                connection(endpoint.at_home, purpose="claim", read_only=True)
            )
            await _take(opened, endpoint, workspace, key)
        yield


async def _take(opened: asyncpg.Connection, endpoint: Endpoint, workspace: str, key: str) -> None:
    fence = CURRENT.get()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while not await opened.fetchval(_CLAIM, key):
        if fence is not None:
            await fencing.end_earlier(opened, fence)  # of our own state folder, which lost its lease to us
        holder = await opened.fetchval(_HOLDER, key)
        if fence is not None and str(holder).startswith(f"{session_name('claim')} "):
            return  # it is ours, through another entry of the spec that leads here
        if loop.time() > deadline:
            raise in_use(f'workspace "{workspace}" in backend "{endpoint.name}"', str(holder or ""))
        await asyncio.sleep(0.1)
