"""Stores in the run's Postgres, without a spec: what a test of the store itself needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.adapters.secrets import Secrets
from hybridrag.backends.json.store import JsonStore
from hybridrag.backends.postgres.backend import PostgresBackend
from hybridrag.backends.postgres.spec import PostgresSpec
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.migrate.copying import copy
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare
from hybridrag.model.data import ALL_SLOTS, Slot, streams_of
from hybridrag.model.marks import MarkState
from hybridrag.model.ports import Reader, Store
from hybridrag.model.selection import Embedding
from tests.conftest import DIM, EXAMPLE, Server

TABLES, AGE = "PGTableGraphStorage", "PGGraphStorage"
EMBEDDING = Embedding(model="hash-emb", dim=DIM)


def postgres(
    server: Server, database: str, graph: str = TABLES, isolation: str = "workspace", **index: Any
) -> PostgresBackend:
    """A backend on the run's server; `index` is its `vector_index`."""
    spec = PostgresSpec.model_validate(
        {"type": "postgres", "host": server.host, "port": server.port, "user": server.user, "database": database,
         "password": {"env": "PW"}, "vector_index": index, "graph_storage": graph, "isolation": isolation}
    )  # fmt: skip
    secrets = Secrets({"PW": server.password}, Path())
    return PostgresBackend(
        "pg", spec, environment="test", state=Path(), secrets=secrets, schema=LightRagSchema()
    )


def store(
    server: Server,
    database: str,
    workspace: str = "notes",
    slots: frozenset[Slot] = ALL_SLOTS,
    embedding: Embedding = EMBEDDING,
    graph: str = TABLES,
    **index: Any,
) -> PostgresStore:
    return postgres(server, database, graph, **index).store("unused", workspace, embedding, slots)


def example() -> JsonStore:
    """The example's database, in its files."""
    return JsonStore("files", EXAMPLE / "archive", EMBEDDING)


def meter() -> Meter:
    return Meter(lambda event: None, "test", "copying", 0)


async def move(
    reader: Reader, target: PostgresStore, migration_id: str = "o-1", state: str = "switched", rows: int = 200
) -> int:
    """Everything a migration does at the target, up to `state`; returns the records written."""
    async with target.open_writer(migration_id, "fingerprint") as writer:
        done = await writer.prepare()
        written = await copy(reader, writer, streams_of(target.slots), done, rows, meter())
        await writer.finish(lambda phase: None)
    for reached in (MarkState.VERIFIED, MarkState.SWITCHED)[
        : {"copied": 0, "verified": 1, "switched": 2}[state]
    ]:
        await target.mark(migration_id, reached)
    return written


async def difference(reader: Reader, target: Store) -> Report:
    """What `verify` finds between a source and a target."""
    tables, examination = await examine_source(reader, target, streams_of(target.slots), 200, meter())
    assert examination.refused == []
    return await compare(reader, target, target.reader(), tables, 200, meter())
