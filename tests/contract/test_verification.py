"""Verification finds every kind of damage in every stream of the target, names it, and never cries wolf."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from hybridrag.api import apply, load, plan
from hybridrag.backends.postgres.tables import TABLES, table_name
from hybridrag.engine import World, verify_database
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Difference, Report, compare
from hybridrag.model.data import BY_NAME, EDGE_SEPARATOR, Slot
from tests.conftest import Project
from tests.support.streams import NAMES

FIELD = {
    "full_docs": ("content", "content", "content || 'x'"),
    "text_chunks": ("tokens", "tokens", "tokens + 1"),
    "llm_response_cache": ("return", "return_value", "rtrim(return_value, '}') || ' }'"),
    "full_entities": ("count", "count", "count - 1"),
    "full_relations": ("relation_pairs", "relation_pairs", "relation_pairs - 0"),
    "entity_chunks": ("update_time", "update_time", "update_time + interval '1 second'"),
    "relation_chunks": ("chunk_ids", "chunk_ids", "chunk_ids || '[\"x\"]'"),
    "doc_status": ("updated_at", "updated_at", "updated_at + interval '1 microsecond'"),
    "nodes": ("description", "properties", """jsonb_set(properties, '{description}', '"x"')"""),
    "edges": ("weight", "properties", "jsonb_set(properties, '{weight}', '1.0000001')"),
    "entities": ("source_id", "chunk_ids", "array_append(chunk_ids, 'x')"),
    "relationships": ("file_path", "file_path", "file_path || ' '"),
    "chunks": ("created_at", "create_time", "create_time - interval '1 second'"),
}
"""One field of each stream: its name, its column, and the smallest change of it that matters."""


@dataclass
class Moved:
    """A database that was just migrated, and an administrator's connection to its server."""

    world: World
    sql: asyncpg.Connection
    expected: dict[str, NamespaceDigest]

    def table(self, namespace: str) -> str:
        return table_name(namespace, self.world.database("notes").embedding)

    async def compare(self, *namespaces: str) -> Report:
        """What `verify` finds in these streams (all without names)."""
        item = self.world.database("notes")
        source, target = self.world.store(item, "json"), self.world.store(item, "pg")
        expected = {name: self.expected[name] for name in namespaces or NAMES}
        return await compare(source.reader(), target, target.reader(), expected, 100, _meter())

    async def two(self, namespace: str) -> list[str]:
        """The keys of two rows."""
        query = f"SELECT {_key(namespace, 't')} FROM {self.table(namespace)} t ORDER BY 1 LIMIT 2"
        rows = await self.sql.fetch(query)
        return [row[0] for row in rows]


def _key(namespace: str, of: str) -> str:
    return f"{of}.src_id || chr(31) || {of}.tgt_id" if namespace == "edges" else f"{of}.id"


def _is(namespace: str, of: str, key: str) -> str:
    quoted = key.replace("'", "''")
    return f"{_key(namespace, of)} = '{quoted}'"


def _meter() -> Meter:
    return Meter(lambda event: None, "verify.notes", "comparing", 0)


@contextlib.asynccontextmanager
async def _damaged(moved: Moved, namespace: str, statement: str) -> AsyncIterator[None]:
    """The table as it is after a statement; afterwards exactly as it was before."""
    table = moved.table(namespace)
    await moved.sql.execute(f"CREATE TEMP TABLE kept AS TABLE {table}")
    # Foreign keys of the graph would take rows of the other stream along, or refuse.
    await moved.sql.execute("SET session_replication_role = replica")
    try:
        changed = await moved.sql.execute(statement.replace("{table}", table))
        assert not changed.endswith(" 0"), f"the damage did nothing: {statement}"
        yield
    finally:
        await moved.sql.execute(
            f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"
        )
        await moved.sql.execute("SET session_replication_role = origin")


@pytest.fixture
async def moved(project: Project) -> AsyncIterator[Moved]:
    """The example, migrated in this process."""
    env = load(project.folder / "hybridrag.yaml")
    assert (await apply(await plan(env))).outcome == "done"
    item = env.world.database("notes")
    reader, target = env.world.store(item, "json").reader(), env.world.store(item, "pg")
    expected, _ = await examine_source(reader, target, NAMES, 100, _meter())
    assert project.dsn
    sql = await asyncpg.connect(project.dsn)
    try:
        yield Moved(env.world, sql, expected)
    finally:
        await sql.close()


async def test_every_damage_in_every_stream_is_found_and_named_and_nothing_else(moved: Moved) -> None:
    """One field, one vector component, a row missing, a row too many, two values swapped: 100 % of them, no false alarm."""
    report, examination = await verify_database(moved.world, "notes", lambda event: None)
    assert (report.equal, examination.refused_total, examination.lost) == (True, 0, {})
    assert report.records == sum(table.records for table in moved.expected.values()) > 500
    assert all(table.records >= 2 for table in moved.expected.values()), "the example must fill every stream"
    tried = 0
    for namespace in NAMES:
        for statement, wanted in await _damages(moved, namespace):
            async with _damaged(moved, namespace, statement):
                report = await moved.compare(namespace)
                assert not report.equal, f"{namespace}: not found: {statement}"
                assert report.listed == wanted, f"{namespace}: {statement}"
                kinds = [item.kind for item in wanted]
                counted = [report.missing, report.extra, report.different]
                assert counted == [kinds.count(kind) for kind in ("missing", "extra", "different")]
                tried += 1
            assert (await moved.compare(namespace)).equal, f"{namespace}: the repair is not clean"
    assert tried == 13 * 4 + 3
    assert (await verify_database(moved.world, "notes", lambda event: None))[0].equal


async def _damages(moved: Moved, namespace: str) -> list[tuple[str, list[Difference]]]:
    """(statement, what must be reported) of each kind of damage to one stream."""
    one, other = await moved.two(namespace)
    field, column, change = FIELD[namespace]

    def found(key: str, kind: str, *fields: str) -> Difference:
        return Difference(namespace=namespace, key=key, kind=kind, fields=fields)

    where = f"WHERE {_is(namespace, 't', one)}"
    damages: list[tuple[str, list[Difference]]] = [
        (f"UPDATE {{table}} t SET {column} = {change} {where}", [found(one, "different", field)]),
        (f"DELETE FROM {{table}} t {where}", [found(one, "missing")]),
    ]
    # An extra row: a copy of a real one under a new key.
    ends = {"edges": ("src_id", "tgt_id")}.get(namespace, ("id",))
    columns = [
        row[0]
        for row in await moved.sql.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
            moved.table(namespace),
        )
    ]
    listed = ", ".join(columns)
    values = ", ".join("'zz-extra'" if name in ends else name for name in columns)
    extra = EDGE_SEPARATOR.join(["zz-extra"] * len(ends))
    damages.append(
        (
            f"INSERT INTO {{table}} ({listed}) SELECT {values} FROM {{table}} t {where}",
            [found(extra, "extra")],
        )
    )
    # Two records whose contents changed places: the set of values is the same, so only keyed digests see it.
    own = [item.name for item in TABLES[namespace].columns] or ["properties"]
    if BY_NAME[namespace].slot is Slot.VECTOR:
        own.append("content_vector")
    swap = ", ".join(f"{name} = k.{name}" for name in own)
    pairs = " OR ".join(
        f"({_is(namespace, 't', mine)} AND {_is(namespace, 'k', theirs)})"
        for mine, theirs in ((one, other), (other, one))
    )
    fields = await _apart(moved, namespace, one, other)
    damages.append(
        (
            f"UPDATE {{table}} t SET {swap} FROM kept k WHERE {pairs}",
            [found(key, "different", *fields) for key in sorted((one, other))],
        )
    )
    if BY_NAME[namespace].slot is Slot.VECTOR:
        text = await moved.sql.fetchval(
            f"SELECT content_vector::text FROM {moved.table(namespace)} t {where}"
        )
        numbers = text.strip("[]").split(",")
        numbers[7] = _next(float(numbers[7]))
        statement = f"UPDATE {{table}} t SET content_vector = '[{','.join(numbers)}]' {where}"
        damages.append((statement, [found(one, "different", "vector")]))
    return damages


def _next(value: float) -> str:
    """The neighbouring float32."""
    import numpy as np

    return repr(float(np.nextafter(np.float32(value), np.float32(np.inf))))


async def _apart(moved: Moved, namespace: str, one: str, other: str) -> list[str]:
    """The fields in which two records differ, as the target holds them."""
    item = moved.world.database("notes")
    found: dict[str, dict[str, Any]] = {}
    async for batch in moved.world.store(item, "pg").reader().read(namespace):
        for index, key in enumerate(batch.keys):
            if key in (one, other):
                found[key] = dict(batch.fields[index])
                if batch.vectors is not None:
                    found[key]["vector"] = batch.vectors[index].tolist()
    mine, theirs = found[one], found[other]
    return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))


async def test_more_differences_than_are_listed_are_all_counted(moved: Moved) -> None:
    """A table emptied by accident: every record counts as missing, twenty are named."""
    async with _damaged(moved, "relationships", "DELETE FROM {table}"):
        report = await moved.compare()
    assert report.missing == moved.expected["relationships"].records > 20
    assert (report.extra, report.different, len(report.listed)) == (0, 0, 20)


async def test_records_of_another_workspace_are_none_of_ours(moved: Moved) -> None:
    """A neighbour in the same tables is neither extra nor missing."""
    for namespace in ("full_docs", "entities", "nodes"):
        table = moved.table(namespace)
        await moved.sql.execute(
            f"CREATE TEMP TABLE other AS TABLE {table}; UPDATE other SET workspace = 'neighbour'; "
            f"INSERT INTO {table} SELECT * FROM other; DROP TABLE other"
        )
    assert (await moved.compare()).equal
