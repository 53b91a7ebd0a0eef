"""What a Postgres server and a LightRAG database in it are right now. Read-only statements and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import asyncpg

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.facts import Facts, Value
from hybridrag.model.ports import Embedding

from .activity import writes_under_way
from .age import graph_in_age
from .client import Endpoint, connection
from .fingerprint import Tally, fingerprint_of, tally_all
from .indexes import index_problems, name_of
from .ledger import VISIBLE, marks_of, together
from .spec import VectorIndexSpec
from .tables import TABLES, table_name

OBSERVE_TIMEOUT_S = 20.0
OLDEST = 14

_SERVER = """
SELECT current_setting('server_version_num')::int AS version_num,
       current_setting('server_version') AS version,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS pgvector_available,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       coalesce((SELECT bool_or(trusted) FROM pg_available_extension_versions WHERE name = 'vector'), false)
           AS pgvector_trusted,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create_tables,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS standby
"""


async def observe_server(endpoint: Endpoint) -> tuple[Facts, Facts]:
    """(facts, details) of a server; an unreachable one is a fact, not an error."""
    try:
        return await asyncio.wait_for(_observe_server(endpoint), OBSERVE_TIMEOUT_S)
    except (
        HybridragError
    ) as error:  # also a secret that cannot be resolved: one server must not hide the others
        return {"type": "postgres", "reachable": False, "problem": error.what, "hint": error.hint}, {}
    except asyncio.TimeoutError:
        problem = f'backend "{endpoint.name}" (postgres at {endpoint.address}) did not answer within {OBSERVE_TIMEOUT_S:.0f} s'
        return {"type": "postgres", "reachable": False, "problem": problem, "hint": None}, {}


async def _observe_server(endpoint: Endpoint) -> tuple[Facts, Facts]:
    started = time.perf_counter()
    async with connection(endpoint, purpose="observe", read_only=True) as opened:
        latency = time.perf_counter() - started
        row = await opened.fetchrow(_SERVER)
        size = await opened.fetchval("SELECT pg_database_size(current_database())")
    facts: dict[str, Value] = {"type": "postgres", "reachable": True, **dict(row)}
    return facts, {"latency_ms": round(latency * 1000, 1), "bytes": size}


def problems(
    name: str, facts: Facts, embedding: Embedding, index: VectorIndexSpec | None = None
) -> list[HybridragError]:
    """Why a server, as observed, cannot take LightRAG's data. Pure."""
    if not facts.get("reachable"):
        hint = facts.get("hint")
        return [BackendUnavailable(str(facts.get("problem")), hint=str(hint) if hint else None)]
    found: list[HybridragError] = []

    def refuse(what: str, hint: str) -> None:
        found.append(BackendUnavailable(f'backend "{name}": {what}', hint=hint))

    if _number(facts, "version_num") < OLDEST * 10_000:
        refuse(
            f"PostgreSQL {facts.get('version')} is too old, {OLDEST} or newer is needed", "upgrade the server"
        )
    if facts.get("standby"):
        refuse("it is a read-only standby", f"name the primary in backends.{name}.host")
    if facts.get("encoding") != "UTF8":
        refuse(
            f"its database is encoded in {facts.get('encoding')}", "create a database with ENCODING 'UTF8'"
        )
    if facts.get("pgvector") is None:
        if facts.get("pgvector_available") is None:
            refuse(
                "the extension pgvector is not installed on the server",
                "install it there (Debian: apt-get install postgresql-<version>-pgvector), then run hybridrag plan",
            )
        elif not (
            facts.get("superuser") or (facts.get("pgvector_trusted") and facts.get("may_create_schema"))
        ):
            refuse(
                "the extension pgvector is there but not created, and this user has no right to create it",
                "as an administrator, in that database: CREATE EXTENSION vector; then run hybridrag plan",
            )
    if not facts.get("may_create_schema") or not facts.get("may_create_tables"):
        missing = "schemas in the database" if not facts.get("may_create_schema") else "tables in its schema"
        refuse(
            f"this user has no right to create {missing}",
            "as an administrator: GRANT CREATE ON DATABASE <database> TO <user>; GRANT ALL ON SCHEMA public TO <user>",
        )
    found += index_problems(name, index or VectorIndexSpec(), facts, embedding)
    return found


def _number(facts: Facts, name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0


async def observe_store(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: Collection[Slot],
    index: VectorIndexSpec,
) -> tuple[Facts, Facts]:
    """(facts, details) of some slots of a workspace: records, our marks, indexes. Raises BackendUnavailable."""
    async with (
        connection(endpoint, purpose="observe", read_only=True) as opened,
        opened.transaction(isolation="repeatable_read", readonly=True),
    ):
        tables = {name: table_name(name, embedding) for name in streams_of(slots)}
        present, tallies = await tally_all(opened, workspace, embedding, slots)
        facts: dict[str, Value] = {"schema": len(present) == len(tables)}
        for namespace, table in tables.items():
            facts[f"records/{namespace}"] = tallies[namespace].rows if namespace in tallies else 0
            if TABLES[namespace].vector and namespace in present:
                facts[f"dim/{table}"] = present[namespace].dim
                facts[f"neighbours/{namespace}"] = await opened.fetchval(
                    f"SELECT EXISTS (SELECT 1 FROM {table} WHERE workspace <> $1)", workspace
                )
                facts[f"index/{namespace}"] = await opened.fetchval(
                    "SELECT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = to_regclass($1) "
                    "AND indexrelid = to_regclass($2) AND indisvalid)",
                    table,
                    name_of(table, index),
                )
        if Slot.VECTOR in slots:
            facts["foreign_vectors"] = await _foreign_vectors(opened, workspace, set(tables.values()))
        facts.update(_as_source(endpoint, workspace, tables, tallies))
        if Slot.GRAPH in slots and not facts["records/nodes"]:
            facts.update(_in_age(workspace, await graph_in_age(opened, workspace)))
        if facts["exists"]:
            facts["fingerprint"] = await fingerprint_of(opened, workspace, present, tallies)
            under_way = await writes_under_way(opened, workspace, embedding, slots)
            facts["unfinished_writes"] = ", ".join(under_way) or None
        marks = await marks_of(opened, workspace, slots)
        facts["migration"], facts["state"], facts["source_fingerprint"] = together(marks, slots)
        return facts, await _details(opened, workspace, list(tables))


def _as_source(
    endpoint: Endpoint, workspace: str, tables: dict[str, str], tallies: dict[str, Tally]
) -> dict[str, Value]:
    """Whether there is something to read, and how much."""
    if any(found.rows for found in tallies.values()):
        if absent := [table for name, table in tables.items() if name not in tallies]:
            words = f'backend "{endpoint.name}" has no table {", ".join(sorted(absent))}'
            return {"exists": False, "missing": f'{words}, though it holds rows of workspace "{workspace}"'}
        return {"exists": True, "bytes": sum(found.size for found in tallies.values())}
    where = f'database "{endpoint.database}" of backend "{endpoint.name}"'
    return {"exists": False, "missing": f'{where} holds no rows of workspace "{workspace}"'}


def _in_age(workspace: str, graph: str | None) -> dict[str, Value]:
    if graph is None:
        return {}
    words = f'the graph of workspace "{workspace}" is kept in Apache AGE (PGGraphStorage, graph "{graph}")'
    return {"exists": False, "missing": f"{words}, which cannot be read yet"}


async def _foreign_vectors(opened: asyncpg.Connection, workspace: str, ours: set[str]) -> str | None:
    """Vector tables of another model (or without suffix) that hold rows of this workspace."""
    rows = await opened.fetch(
        r"SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE 'lightrag\_vdb\_%'"
    )
    holding: list[str] = []
    for row in rows:
        name = row["tablename"]
        if name not in ours and await opened.fetchval(
            f'SELECT EXISTS (SELECT 1 FROM "{name}" WHERE workspace = $1)', workspace
        ):
            holding.append(name)
    return ", ".join(sorted(holding)) or None


async def _details(opened: asyncpg.Connection, workspace: str, streams: list[str]) -> Facts:
    if not await opened.fetchval(VISIBLE, "checkpoint"):
        return {}
    done = await opened.fetchval(
        "SELECT coalesce(sum(records), 0)::bigint FROM hybridrag_ledger.checkpoint "
        "WHERE workspace = $1 AND namespace = ANY($2)",
        workspace,
        streams,
    )
    return {"checkpoint_records": done}
