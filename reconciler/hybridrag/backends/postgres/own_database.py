"""A Postgres database of its own for one LightRAG database: made when a copy begins, dropped with the last of it.

It is made under another name and renamed when it bears our comment, so that one without the comment is never ours,
whenever a kill comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import asyncpg

from hybridrag.errors import BackendUnavailable
from hybridrag.model.data import ALL_SLOTS, Slot, streams_of
from hybridrag.model.facts import Facts, Value
from hybridrag.model.marks import MarkState

from .client import connection
from .endpoint import Endpoint
from .isolation import draft_of, literal, own_database, quoted
from .ledger import marks_of
from .writer import LOCK_PATIENCE_S, PostgresWriter, PostgresWriterSession, take

OURS = "made by hybridrag for workspace "
"""How the comment begins on a database that is ours to drop."""
_LOCK = "SELECT pg_try_advisory_lock(hashtext('hybridrag own database'), hashtext($1))"
_THERE = "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)"
_COMMENT = """
SELECT coalesce(shobj_description(oid, 'pg_database') LIKE $2 || '%', false)
       AND pg_has_role(current_user, datdba, 'MEMBER')
FROM pg_database WHERE datname = $1
"""
_UTF8_FITS = """
SELECT pg_encoding_to_char(encoding) = 'UTF8' OR datcollate IN ('C', 'POSIX') AND datctype IN ('C', 'POSIX')
FROM pg_database WHERE datname = 'template0'
"""
_MINE = r"relname LIKE 'lightrag\_%' OR nspname = 'hybridrag_ledger'"
_NOT_OF_AN_EXTENSION = "NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = o.oid AND d.classid = '{}'::regclass AND d.deptype = 'e')"
_USERS = r"nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\_%'"
_ELSE = f"""
SELECT EXISTS (
    SELECT 1 FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
    WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_USERS} AND NOT ({_MINE})
      AND {_NOT_OF_AN_EXTENSION.format("pg_class")}
) OR EXISTS (
    SELECT 1 FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace
    WHERE {_USERS} AND {_NOT_OF_AN_EXTENSION.format("pg_proc")}
) OR EXISTS (SELECT 1 FROM pg_largeobject_metadata)
"""
_TABLES = r"""
SELECT format('%I.%I', nspname, relname) AS name, relname::text AS bare, EXISTS (
           SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND attname = 'workspace' AND NOT attisdropped) AS apart
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE relkind IN ('r', 'p') AND relname LIKE 'lightrag\_%' AND nspname NOT LIKE 'pg\_%'
"""
_MARKS = """
SELECT EXISTS (SELECT 1 FROM hybridrag_ledger.migration WHERE workspace <> $1 OR NOT slot = ANY($2))
"""


async def create(endpoint: Endpoint, workspace: str) -> None:
    """Make the database where it is not there; idempotent, one at a time. Raises BackendUnavailable."""
    name, draft = endpoint.database, draft_of(endpoint.database)
    async with connection(endpoint.at_home, purpose="writer", read_only=False, patience_s=15) as opened:
        await _alone(opened, endpoint)
        if await opened.fetchval(_THERE, name):
            return
        try:
            if not await opened.fetchval(_THERE, draft):
                locale = "" if await opened.fetchval(_UTF8_FITS) else " LC_COLLATE 'C' LC_CTYPE 'C'"
                await opened.execute(
                    f"CREATE DATABASE {quoted(draft)} TEMPLATE template0 ENCODING 'UTF8'{locale}"
                )
            await opened.execute(f"COMMENT ON DATABASE {quoted(draft)} IS {literal(OURS + workspace)}")
            await opened.execute(f"ALTER DATABASE {quoted(draft)} RENAME TO {quoted(name)}")
        except asyncpg.InsufficientPrivilegeError:
            what, hint = no_right(name, endpoint.user)
            raise BackendUnavailable(f'backend "{endpoint.name}": {what}', hint=hint) from None


def no_right(name: str, role: str, extension: str | None = None) -> tuple[str, str]:
    """(what, hint) for a user who may not make the database. `extension`: how pgvector gets into it, where only
    somebody else may see to that.
    """
    made = f"CREATE DATABASE {quoted(name)} OWNER {quoted(role)} TEMPLATE template0 ENCODING 'UTF8'"
    allow = "" if extension else f"ALTER ROLE {quoted(role)} CREATEDB; or "
    if extension is not None:
        made += f"; then {extension.removeprefix('as an administrator, ')}"
    lacking = "cannot put pgvector into a new" if extension else "has no right to create"
    return (
        f'user "{role}" {lacking} Postgres database "{name}" (isolation: database)',
        f"as an administrator: {allow}{made}; then run hybridrag plan",
    )


async def _alone(opened: asyncpg.Connection, endpoint: Endpoint) -> None:
    async def lock() -> bool:
        return bool(await opened.fetchval(_LOCK, endpoint.database))

    busy = f'another session of hybridrag is making or dropping Postgres database "{endpoint.database}"'
    await take(
        lock, LOCK_PATIENCE_S, BackendUnavailable(busy, hint="wait for it to end, then run hybridrag apply")
    )


async def drop(endpoint: Endpoint) -> None:
    """Drop the database where it is ours and nothing is left in it; otherwise it stays. Call it without a session in it.

    Raises BackendUnavailable where somebody is connected to it.
    """
    name = endpoint.database
    async with connection(endpoint.at_home, purpose="writer", read_only=False, patience_s=15) as opened:
        await _alone(opened, endpoint)
        if not await opened.fetchval(_COMMENT, name, OURS):
            return
        async with connection(endpoint, purpose="writer", read_only=True) as inside:
            if await _holds_else(inside, "", frozenset(), frozenset()):
                return
        try:
            await opened.execute(f"DROP DATABASE IF EXISTS {quoted(name)}")
        except asyncpg.ObjectInUseError:
            raise BackendUnavailable(
                f'the records kept in Postgres database "{name}" are deleted, but somebody is still connected to it',
                hint="stop what uses it (SELECT * FROM pg_stat_activity), then run the command again",
            ) from None


async def droppable(
    opened: asyncpg.Connection,
    endpoint: Endpoint,
    workspace: str,
    slots: Collection[Slot],
    tables: Mapping[str, str],
) -> bool:
    """Whether the database would go with these slots of the workspace. `tables` by namespace; a session in it."""
    if not await opened.fetchval(_COMMENT, endpoint.database, OURS):
        return False
    own = frozenset(tables[name] for name in streams_of(slots))
    return not await _holds_else(opened, workspace, own, frozenset(slots))


async def _holds_else(
    opened: asyncpg.Connection, workspace: str, tables: frozenset[str], slots: frozenset[Slot]
) -> bool:
    """Whether there is anything beside rows of this workspace in these tables, LightRAG's tables and our ledger."""
    if await opened.fetchval(_ELSE):
        return True
    looks = ["SELECT $1::text IS NULL"]
    for row in await opened.fetch(_TABLES):
        others = " WHERE workspace <> $1" if row["apart"] and row["bare"] in tables else ""
        looks.append(f"SELECT EXISTS (SELECT 1 FROM {row['name']}{others})")
    if await opened.fetchval(
        f"SELECT bool_or(held) FROM ({' UNION ALL '.join(looks)}) AS look (held)", workspace
    ):
        return True
    if await opened.fetchval("SELECT to_regclass('hybridrag_ledger.migration')") is None:
        return False
    return bool(await opened.fetchval(_MARKS, workspace, [slot.value for slot in slots]))


async def observe_absent(
    endpoint: Endpoint, workspace: str, slots: Collection[Slot], server: Facts, extension: str
) -> Facts:
    """Facts of a database that is not there, from those of its server, and where else its data is."""
    facts = _absent(endpoint, slots, server, extension)
    async with connection(endpoint.at_home, purpose="observe", read_only=True) as opened:
        return {**facts, "elsewhere": await served_elsewhere(opened, endpoint, workspace)}


def _absent(endpoint: Endpoint, slots: Collection[Slot], server: Facts, extension: str) -> Facts:
    name = endpoint.database
    facts: dict[str, Value] = {f"records/{stream}": 0 for stream in streams_of(slots)}
    facts |= {
        "schema": False,
        "exists": False,
        "missing": f'Postgres database "{name}" of backend "{endpoint.name}" does not exist',
        "creates": f'Postgres database "{name}"',
        "migration": None,
        "state": None,
        "source_fingerprint": None,
    }
    by_hand = None if server.get("superuser") or server.get("pgvector_trusted") else extension
    if by_hand or not server.get("may_create_databases"):
        what, hint = no_right(name, endpoint.user, by_hand)
        facts |= {"refusal": f'backend "{endpoint.name}": {what}', "way_out": hint}
    return facts


async def served_elsewhere(opened: asyncpg.Connection, endpoint: Endpoint, workspace: str) -> str | None:
    """In words, the place where the other isolation keeps a copy of this workspace that was switched to."""
    other = endpoint.at_home if endpoint.home else endpoint.own(own_database(endpoint.database, workspace))
    if not await opened.fetchval(_THERE, other.database):
        return None
    try:
        async with connection(other, purpose="observe", read_only=True) as there:
            marks = await marks_of(there, workspace, ALL_SLOTS)
    except BackendUnavailable:  # not for our eyes
        return None
    if not any(mark.state is MarkState.SWITCHED for mark in marks.values()):
        return None
    return f'Postgres database "{other.database}" holds workspace "{workspace}"'


class OwnDatabaseSession:
    """A writer's session whose database is made first. See `model.ports.WriterSession`."""

    def __init__(self, endpoint: Endpoint, workspace: str, inner: PostgresWriterSession) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._inner = inner

    async def __aenter__(self) -> PostgresWriter:
        await create(self._endpoint, self._workspace)
        return await self._inner.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        await self._inner.__aexit__(*exc)  # type: ignore[arg-type]
