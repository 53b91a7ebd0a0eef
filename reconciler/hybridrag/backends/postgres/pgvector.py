"""What a server says of pgvector, and why LightRAG could not work with it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hybridrag.model.facts import Facts

PUBLIC = "public"
"""The schema in which LightRAG's driver looks for pgvector, and no other."""
_CREATE_EXTENSION = {
    "rds": "as the master user (rds_superuser), in that database: CREATE EXTENSION vector",
    "cloudsql": "as a member of cloudsqlsuperuser (postgres), in that database: CREATE EXTENSION vector",
    "azure": "add VECTOR to the server parameter azure.extensions; then, as a member of azure_pg_admin, in that "
    "database: CREATE EXTENSION vector",
    "supabase": "enable vector below Database, Extensions in the dashboard, or as postgres: CREATE EXTENSION vector",
}


def extension_problems(facts: Facts) -> Iterator[tuple[str, str]]:
    """(what, hint) about pgvector: there, created, and where LightRAG finds it."""
    made, there = facts.get("pgvector"), facts.get("pgvector_available")
    if made is None and there is None:
        yield (
            "the extension pgvector is not installed on the server",
            "upgrade the instance to a version that its service offers pgvector for, then run hybridrag plan"
            if facts.get("service") in _CREATE_EXTENSION
            else "install it there (Debian: apt-get install postgresql-<version>-pgvector), then run hybridrag plan",
        )
    elif made is None and not (
        facts.get("superuser") or (facts.get("pgvector_trusted") and facts.get("may_create_schema"))
    ):
        yield (
            "the extension pgvector is there but not created, and this user has no right to create it",
            f"{how_to_create(facts)}; then run hybridrag plan",
        )
    else:
        yield from _schema_problems(facts)


def _schema_problems(facts: Facts) -> Iterator[tuple[str, str]]:
    """(what, hint) where LightRAG would not find pgvector's types.

    Its driver looks for `public.vector` (`pgvector.asyncpg.register_vector`), its statements say VECTOR without a
    schema, and it creates a missing extension in the first schema of the search path.
    """
    made, lies, first = facts.get("pgvector"), facts.get("pgvector_schema"), facts.get("schema")
    admin, again = "as an administrator, in that database:", "then run hybridrag plan"
    if made is None and first not in (None, PUBLIC):
        yield (
            f'LightRAG would create the extension pgvector in the schema "{first}", and looks for it in "{PUBLIC}"',
            f"{admin} CREATE EXTENSION vector SCHEMA {PUBLIC}; {again}",
        )
    elif lies not in (None, PUBLIC):
        yield (
            f'the extension pgvector is in the schema "{lies}", and LightRAG looks for it in "{PUBLIC}"',
            f"{admin} ALTER EXTENSION vector SET SCHEMA {PUBLIC}; {again}",
        )
    elif made is not None and facts.get("public_is_searched") is False:
        yield (
            f'the extension pgvector is in the schema "{PUBLIC}", which the search_path of this user does not name',
            f"{admin} ALTER DATABASE <database> SET search_path = <its schemas>, {PUBLIC} (or correct options in the "
            f"spec); {again}",
        )


def how_to_create(facts: Facts) -> str:
    """How pgvector gets into a database by somebody who may."""
    usual = "as an administrator, in that database: CREATE EXTENSION vector"
    return _CREATE_EXTENSION.get(str(facts.get("service")), usual)
