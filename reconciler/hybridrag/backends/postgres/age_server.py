"""What a server says of Apache AGE, and why LightRAG's PGGraphStorage could not work there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import asyncpg

from hybridrag.model.facts import Facts

UNSUPPORTED = (1, 8, 0)
"""LightRAG 1.5.7 refuses this version and every later one (`postgres_impl.py`, AGE_FIRST_UNSUPPORTED_VERSION)."""
_AGE = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'age') AS age,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'age') AS age_available,
       coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'ag_catalog'), false)
           AS age_usable,
       coalesce((SELECT bool_and(has_table_privilege(c.oid, 'SELECT')) FROM pg_class c JOIN pg_namespace n
           ON n.oid = c.relnamespace WHERE n.nspname = 'ag_catalog' AND c.relkind = 'r'), false) AS age_catalog
"""
_PROBE = "SELECT * FROM ag_catalog.cypher('no graph', 'RETURN 1') AS (found ag_catalog.agtype)"
_GRANTS = (
    "GRANT USAGE ON SCHEMA ag_catalog TO <user>; GRANT SELECT ON ALL TABLES IN SCHEMA ag_catalog TO <user>"
)
_PRELOAD = "ALTER DATABASE <database> SET session_preload_libraries = 'age'"


async def age_facts(opened: asyncpg.Connection) -> Facts:
    return dict(await opened.fetchrow(_AGE))


async def age_preloaded(opened: asyncpg.Connection, facts: Facts) -> bool | None:
    """Whether every new session has AGE; None where this user cannot know. Ask first of all things in a session.

    LightRAG never loads it: in a session without it, its Cypher fails (`unhandled cypher(cstring) function call`)
    until a function of AGE happens to be called.
    """
    if facts.get("age") is None or not facts.get("age_usable"):
        return None
    try:
        async with opened.transaction():
            await opened.execute(_PROBE)
    except asyncpg.PostgresError as error:
        return "unhandled cypher" not in str(error)
    return True


def age_problems(name: str, facts: Facts) -> Iterator[tuple[str, str]]:
    """(what, hint) about AGE: there, created, usable, and of a version that LightRAG takes."""
    tables = (
        f"remove backends.{name}.graph_storage: LightRAG's own tables (PGTableGraphStorage) need no extension"
    )
    made, there = facts.get("age"), facts.get("age_available")
    if made is None and there is None:
        yield (
            "the extension Apache AGE is not installed on the server, and graph_storage is PGGraphStorage",
            f"install it there (Debian: apt-get install postgresql-<version>-age), or {tables}",
        )
        return
    newest = max(filter(None, (_version(made), _version(there))), default=None)
    if newest is not None and newest >= UNSUPPORTED:
        found = ".".join(map(str, newest))
        yield (
            f"Apache AGE {found} is too new: LightRAG refuses 1.8.0 and later, as their queries crash the server",
            f"install an earlier one (1.7.0 is known to work), or {tables}",
        )
    elif made is None:
        yield (
            "the extension Apache AGE is there but not created in the database",
            f"as an administrator, in that database: CREATE EXTENSION age; {_GRANTS}; {_PRELOAD}; then run hybridrag plan",
        )
    elif not (facts.get("age_usable") and facts.get("age_catalog")):
        yield (
            "this user has no right to use Apache AGE",
            f"as an administrator, in that database: {_GRANTS}; then run hybridrag plan",
        )
    elif facts.get("age_preloaded") is False:
        yield (
            "Apache AGE is not loaded into new sessions, and LightRAG does not load it: its queries would fail",
            f"as an administrator: {_PRELOAD}; then run hybridrag plan",
        )


def _version(text: object) -> tuple[int, ...] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(text))
    return tuple(map(int, found.groups())) if found else None
