"""What a Postgres server and a LightRAG database in it are right now. Read-only statements and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator

import asyncpg

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.data import BY_NAME, Slot
from hybridrag.model.facts import Facts, Value
from hybridrag.model.selection import Embedding
from hybridrag.model.vectors import as_facts

from . import own_database
from .activity import writes_under_way
from .age import graph_in_age, unusable
from .age_graph import IN_AGE, repeated_edges
from .age_server import age_facts, age_preloaded, age_problems
from .catalog import Physical
from .client import connection
from .endpoint import Endpoint
from .failures import NoSuchDatabase
from .fingerprint import Tally, fingerprint_of, tally_all
from .glance import unindexed
from .graphs import IN_TABLES, Graph, relations
from .indexes import KINDS, index_problems, name_of
from .isolation import quoted
from .ledger import VISIBLE, marks_of, owners_of, together
from .other_models import elsewhere, foreign_vectors
from .pgvector import extension_problems, how_to_create
from .soundness import soundness
from .spec import VectorIndexSpec
from .tables import TABLES
from .unsuffixed import candidates, unsuffixed, words
from .whereabouts import whereabouts

OBSERVE_TIMEOUT_S = 20.0
OLDEST = 14

_SERVER = """
SELECT current_setting('server_version_num')::int AS version_num,
       current_setting('server_version') AS version,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,
       (SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector')
           AS pgvector_schema,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS pgvector_available,
       current_schema()::text AS schema,
       'public' = ANY (current_schemas(false)) AS public_is_searched,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       coalesce((SELECT bool_or(trusted) FROM pg_available_extension_versions WHERE name = 'vector'), false)
           AS pgvector_trusted,
       (SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user) AS may_create_databases,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create_tables,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only') = 'on' AS read_only,
       (SELECT min(n) FROM (
           SELECT current_setting('max_connections')::int
                  - current_setting('superuser_reserved_connections')::int
                  - coalesce(current_setting('reserved_connections', true)::int, 0)
           UNION ALL SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0
           UNION ALL SELECT datconnlimit FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0
       ) AS limits (n)) AS connection_limit,
       (SELECT min(service) FROM pg_roles JOIN unnest($1::text[], $2::text[]) AS known (role, service)
           ON rolname = role) AS service
"""
_SERVICES = {
    "rds_superuser": "rds",
    "cloudsqlsuperuser": "cloudsql",
    "azure_pg_admin": "azure",
    "supabase_admin": "supabase",
}
"""Managed services by a role that only they have. Nothing here may be volatile: facts decide whether a plan is stale."""
_OWN_CONNECTIONS = 2
"""What a migration holds while LightRAG's pool is open: the writer's session, and one that looks."""


async def observe_server(endpoint: Endpoint, graph: Graph = IN_TABLES) -> tuple[Facts, Facts]:
    """(facts, details) of a server; an unreachable one is a fact, not an error."""
    try:
        return await asyncio.wait_for(_observe_server(endpoint, graph), OBSERVE_TIMEOUT_S)
    except (
        HybridragError
    ) as error:  # also a secret that cannot be resolved: one server must not hide the others
        return {"type": "postgres", "reachable": False, "problem": error.what, "hint": error.hint}, {}
    except asyncio.TimeoutError:
        problem = f'backend "{endpoint.name}" (postgres at {endpoint.address}) did not answer within {OBSERVE_TIMEOUT_S:.0f} s'
        return {"type": "postgres", "reachable": False, "problem": problem, "hint": None}, {}


async def _observe_server(endpoint: Endpoint, graph: Graph) -> tuple[Facts, Facts]:
    started = time.perf_counter()
    # Read-only by its transaction: a read-only session would hide the server's own setting.
    async with (
        connection(endpoint, purpose="observe", read_only=False) as opened,
        opened.transaction(readonly=True),
    ):
        latency = time.perf_counter() - started
        row = await opened.fetchrow(_SERVER, list(_SERVICES), list(_SERVICES.values()))
        age = await _about_age(opened) if graph is IN_AGE else {}
        size = await opened.fetchval("SELECT pg_database_size(current_database())")
    facts: dict[str, Value] = {"type": "postgres", "reachable": True, **dict(row), **age}
    return facts, {"latency_ms": round(latency * 1000, 1), "bytes": size}


async def _about_age(opened: asyncpg.Connection) -> dict[str, Value]:
    found = await age_facts(opened)
    return {**found, "age_preloaded": await age_preloaded(opened, found)}


def problems(
    name: str,
    facts: Facts,
    embedding: Embedding,
    index: VectorIndexSpec | None = None,
    *,
    pool: int,
    apart: bool = False,
) -> list[HybridragError]:
    """Why a server, as observed, cannot take LightRAG's data through `pool` connections. Pure.

    `apart`: the data goes into databases of its own, so that nothing depends on what the observed one is like.
    """
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
    elif facts.get("read_only"):
        refuse(
            "its sessions are read-only (default_transaction_read_only); managed servers set this when they ran full",
            "make room or enlarge the disk; then, as an administrator: "
            "ALTER DATABASE <database> RESET default_transaction_read_only",
        )
    if apart:
        facts = {**facts, "pgvector": None, "superuser": True, "schema": None}
    elif facts.get("encoding") != "UTF8":
        refuse(*_encoded(facts))
    found += index_problems(name, index or VectorIndexSpec(), facts, embedding)
    age = age_problems(name, facts) if "age" in facts else ()
    for what, hint in (*extension_problems(facts), *age, *_connection_problems(name, facts, pool)):
        refuse(what, hint)
    for what, hint in () if apart else _rights_problems(facts):
        refuse(what, hint)
    return found


def _encoded(facts: Facts) -> tuple[str, str]:
    return f"its database is encoded in {facts.get('encoding')}", "create a database with ENCODING 'UTF8'"


def _rights_problems(
    facts: Facts, database: str = "<database>", user: str = "<user>"
) -> Iterator[tuple[str, str]]:
    """(what, hint) about our rights in one database."""
    if not facts.get("may_create_schema") or not facts.get("may_create_tables"):
        missing = "schemas in the database" if not facts.get("may_create_schema") else "tables in its schema"
        yield (
            f"this user has no right to create {missing}",
            f"as an administrator: GRANT CREATE ON DATABASE {database} TO {user}; GRANT ALL ON SCHEMA public TO {user}",
        )


def _connection_problems(name: str, facts: Facts, pool: int) -> Iterator[tuple[str, str]]:
    """(what, hint) where LightRAG's pool and our own sessions do not fit."""
    limit = facts.get("connection_limit")
    if not isinstance(limit, int) or limit >= pool + _OWN_CONNECTIONS:
        return
    fits = limit - _OWN_CONNECTIONS
    grow = "as an administrator raise max_connections, or the CONNECTION LIMIT of the role or database"
    yield (
        f"it allows this user {limit} connections; pool.max is {pool}, and a migration holds {_OWN_CONNECTIONS} more",
        f"set backends.{name}.pool.max to {fits}, or {grow}" if fits >= 1 else grow,
    )


def _number(facts: Facts, name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0


async def observe_store(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: Collection[Slot],
    index: VectorIndexSpec,
    graph: Graph = IN_TABLES,
) -> tuple[Facts, Facts]:
    """(facts, details) of some slots of a workspace: records, our marks, indexes. Raises BackendUnavailable.

    A database of its own tells as well why it cannot be used (`refusal`), or that it has to be made (`creates`).
    """
    try:
        return await _observe_store(endpoint, workspace, embedding, slots, index, graph)
    except NoSuchDatabase:
        if endpoint.home is None:
            raise
    server, _ = await _observe_server(endpoint.at_home, graph)
    how = how_to_create(server)
    return await own_database.observe_absent(endpoint, workspace, slots, server, how), {}


async def _observe_store(
    endpoint: Endpoint,
    workspace: str,
    embedding: Embedding,
    slots: Collection[Slot],
    index: VectorIndexSpec,
    graph: Graph,
) -> tuple[Facts, Facts]:
    async with (
        connection(endpoint, purpose="observe", read_only=True) as opened,
        opened.transaction(isolation="repeatable_read", readonly=True),
    ):
        tables = relations(workspace, embedding, slots, graph)
        await _refuse_unreadable(opened, endpoint, slots, graph)
        present, tallies = await tally_all(opened, workspace, embedding, slots, graph)
        lacking = [name for name in tables if name not in present and not TABLES[name].ours]
        facts: dict[str, Value] = {"schema": not lacking}
        for namespace, table in tables.items():
            facts[f"records/{namespace}"] = tallies[namespace].rows if namespace in tallies else 0
            if TABLES[namespace].vector and namespace in present:
                facts[f"dim/{table}"] = present[namespace].dim
                facts[f"neighbours/{namespace}"] = await opened.fetchval(
                    f"SELECT EXISTS (SELECT 1 FROM {table} WHERE workspace <> $1)", workspace
                )
                if KINDS[index.type].method:
                    facts[f"unindexed/{namespace}"] = bool(await unindexed(opened, [table])) or None
                blank = f"SELECT count(*) FROM {table} WHERE workspace = $1 AND content_vector IS NULL"
                facts[f"blank/{namespace}"] = await opened.fetchval(blank, workspace) or None
                facts[f"index/{namespace}"] = await opened.fetchval(
                    "SELECT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = to_regclass($1) "
                    "AND indexrelid = to_regclass($2) AND indisvalid)",
                    table,
                    name_of(table, index),
                )
        if Slot.VECTOR in slots:
            others = await foreign_vectors(opened, workspace, set(tables.values()))
            facts["foreign_vectors"] = ", ".join(others) or None
            own = {name: tables[name] for name in present}
            facts.update(as_facts(await elsewhere(opened, workspace, others, own)))
        facts.update(_as_source(endpoint, workspace, tables, tallies))
        legacy = candidates(tables, [name for name, found in tallies.items() if found.rows])
        if found := await unsuffixed(opened, workspace, legacy):
            facts["unsuffixed"] = words(found)
        if Slot.GRAPH in slots:
            facts.update(await _of_graph(opened, workspace, graph, facts))
        facts.update(await whereabouts(opened, workspace, slots, graph))
        if facts["exists"]:
            facts["fingerprint"] = await fingerprint_of(opened, workspace, present, tallies)
            under_way = await writes_under_way(opened, workspace, embedding, slots, graph)
            facts["unfinished_writes"] = ", ".join(under_way) or None
        marks = await marks_of(opened, workspace, slots, graph)
        facts["migration"], facts["state"], facts["source_fingerprint"] = together(marks, slots)
        if facts["migration"] is None:
            facts["elsewhere"] = await own_database.served_elsewhere(opened, endpoint, workspace)
        facts.update(await _sound(opened, endpoint, tables, present, embedding, graph))
        if endpoint.home is not None:
            facts |= await _own(opened, endpoint, embedding, index)
            if await own_database.droppable(opened, endpoint, workspace, slots, tables):
                facts["drops"] = f'Postgres database "{endpoint.database}"'
        return facts, await _details(opened, workspace, slots, graph, list(tables))


async def _sound(
    opened: asyncpg.Connection,
    endpoint: Endpoint,
    tables: dict[str, str],
    present: dict[str, Physical],
    embedding: Embedding,
    graph: Graph,
) -> Facts:
    found = await soundness(opened, tables, present, embedding, graph)
    if "refusal" not in found:
        return found
    where = f'backend "{endpoint.name}", Postgres database "{endpoint.database}"'
    return {**found, "refusal": f"{where}: {found['refusal']}"}


async def _own(
    opened: asyncpg.Connection, endpoint: Endpoint, embedding: Embedding, index: VectorIndexSpec
) -> Facts:
    """Why LightRAG's data cannot go into this database, as it is; nothing when it can."""
    row = dict(await opened.fetchrow(_SERVER, list(_SERVICES), list(_SERVICES.values())))
    names = quoted(endpoint.database), quoted(endpoint.user)
    told = [_encoded(row)] if row["encoding"] != "UTF8" else []
    told += [*extension_problems(row), *_rights_problems(row, *names)]
    told += [(error.what, str(error.hint)) for error in index_problems(endpoint.name, index, row, embedding)]
    if not told:
        return {}
    what, hint = told[0]
    return {
        "refusal": f'backend "{endpoint.name}", Postgres database "{endpoint.database}": {what}',
        "way_out": hint,
    }


def _as_source(
    endpoint: Endpoint, workspace: str, tables: dict[str, str], tallies: dict[str, Tally]
) -> dict[str, Value]:
    """Whether there is something to read, and how much."""
    if any(found.rows for found in tallies.values()):
        lacking = [name for name in tables if name not in tallies and not TABLES[name].ours]
        if absent := [tables[name] for name in lacking]:
            words = f'backend "{endpoint.name}" has no table {", ".join(sorted(absent))}'
            return {"exists": False, "missing": f'{words}, though it holds rows of workspace "{workspace}"'}
        return {"exists": True, "bytes": sum(found.size for found in tallies.values())}
    where = f'database "{endpoint.database}" of backend "{endpoint.name}"'
    return {"exists": False, "missing": f'{where} holds no rows of workspace "{workspace}"'}


async def _of_graph(
    opened: asyncpg.Connection, workspace: str, graph: Graph, facts: dict[str, Value]
) -> dict[str, Value]:
    """A graph that lies where the spec does not say is not taken for an empty one; repeated edges count once."""
    if graph is IN_AGE:
        if facts["records/edges"] and (repeated := await repeated_edges(opened, workspace)):
            return {"records/edges": _number(facts, "records/edges") - repeated, "repeated_edges": repeated}
        if not facts["records/nodes"]:
            if await _holds(opened, "lightrag_graph_nodes", workspace):
                return _elsewhere(workspace, "LightRAG's tables", "PGTableGraphStorage")
            if problem := unusable(workspace):
                return {"problem": problem, "hint": "give the database another workspace in the spec"}
    elif not facts["records/nodes"] and (name := await graph_in_age(opened, workspace)):
        return _elsewhere(workspace, f'Apache AGE (graph "{name}")', "PGGraphStorage")
    return {}


async def _holds(opened: asyncpg.Connection, table: str, workspace: str) -> bool:
    if await opened.fetchval("SELECT to_regclass($1)", table) is None:
        return False
    return bool(
        await opened.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE workspace = $1)", workspace)
    )


def _elsewhere(workspace: str, where: str, storage: str) -> dict[str, Value]:
    words = f'the graph of workspace "{workspace}" is kept in {where}, and the spec says otherwise'
    return {"exists": False, "missing": f"{words}: name graph_storage: {storage} for it in the spec"}


async def _refuse_unreadable(
    opened: asyncpg.Connection, endpoint: Endpoint, slots: Collection[Slot], graph: Graph
) -> None:
    """Raises BackendUnavailable where AGE is there and this user may not read its values."""
    if graph is not IN_AGE or Slot.GRAPH not in slots:
        return
    facts = await age_facts(opened)
    if facts["age"] is not None and not facts["age_usable"]:
        what, hint = next(iter(age_problems(endpoint.name, facts)))
        raise BackendUnavailable(f'backend "{endpoint.name}": {what}', hint=hint)


async def _details(
    opened: asyncpg.Connection, workspace: str, slots: Collection[Slot], graph: Graph, streams: list[str]
) -> Facts:
    if not await opened.fetchval(VISIBLE, "checkpoint"):
        return {}
    owners = owners_of(workspace, slots, graph)
    done = await opened.fetchval(
        "SELECT coalesce(sum(records), 0)::bigint FROM hybridrag_ledger.checkpoint "
        "WHERE (workspace, namespace) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
        [owners[BY_NAME[name].slot] for name in streams],
        streams,
    )
    return {"checkpoint_records": done}
