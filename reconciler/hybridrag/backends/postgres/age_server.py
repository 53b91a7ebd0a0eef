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
       coalesce((SELECT bool_or(trusted) FROM pg_available_extension_versions WHERE name = 'age'), false)
           AS age_trusted,
       coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'ag_catalog'), false)
           AS age_usable
"""


async def age_facts(opened: asyncpg.Connection) -> Facts:
    return dict(await opened.fetchrow(_AGE))


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
    elif made is None and not (facts.get("superuser") or facts.get("age_trusted")):
        yield (
            "the extension Apache AGE is there but not created, and this user has no right to create it",
            "as an administrator, in that database: CREATE EXTENSION age; GRANT USAGE ON SCHEMA ag_catalog TO <user>; "
            "ALTER DATABASE <database> SET session_preload_libraries = 'age'; then run hybridrag plan",
        )
    elif made is not None and not facts.get("age_usable"):
        yield (
            "this user has no right to use Apache AGE",
            "as an administrator, in that database: GRANT USAGE ON SCHEMA ag_catalog TO <user>; "
            "ALTER DATABASE <database> SET session_preload_libraries = 'age'; then run hybridrag plan",
        )


def _version(text: object) -> tuple[int, ...] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(text))
    return tuple(map(int, found.groups())) if found else None
