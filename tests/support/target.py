"""Look at a Postgres target as a stranger would: with SQL of our own, not with the code under test."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg


def run_sql(dsn: str, *statements: str) -> list[Any]:
    """Run statements one by one; the rows of the last."""

    async def run() -> list[Any]:
        opened = await asyncpg.connect(dsn)
        try:
            for statement in statements[:-1]:
                await opened.execute(statement)
            return [tuple(row) for row in await opened.fetch(statements[-1])]
        finally:
            await opened.close()

    return asyncio.run(run())


def relations(dsn: str) -> list[Any]:
    """Everything that anybody created in a database: tables, indexes, extensions."""
    return run_sql(
        dsn,
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' "
        "UNION ALL SELECT 'extension', extname FROM pg_extension ORDER BY 1, 2",
    )


def tables(dsn: str) -> dict[str, list[str]]:
    """LightRAG's tables and their columns, without the time at which a graph row was written."""
    rows = run_sql(
        dsn,
        "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name LIKE 'lightrag%' "
        "AND NOT (table_name LIKE 'lightrag_graph%' AND column_name = 'updated_at') GROUP BY 1 ORDER BY 1",
    )
    return dict(rows)


def rows_held(dsn: str) -> int:
    """LightRAG rows in a database."""
    return sum(run_sql(dsn, f"SELECT count(*) FROM {table}")[0][0] for table in tables(dsn))


def content(dsn: str, workspace: str) -> dict[str, Any]:
    """Rows and a digest over every row of each table, every index with its validity, our own ledger."""
    found: dict[str, Any] = {}
    for table, columns in tables(dsn).items():
        row = f"md5(ROW({', '.join(columns)})::text)"
        found[table] = run_sql(
            dsn,
            f"SELECT count(*), md5(string_agg({row}, '' ORDER BY {row})) FROM {table} WHERE workspace = '{workspace}'",
        )[0]
    found["indexes"] = run_sql(
        dsn,
        "SELECT pg_get_indexdef(indexrelid), indisvalid, indisready FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "WHERE c.relname LIKE 'lightrag%' ORDER BY 1",
    )
    found["ledger"] = run_sql(dsn, "SELECT workspace, state FROM hybridrag_ledger.migration")
    found["checkpoints"] = run_sql(
        dsn, "SELECT namespace, sum(records)::bigint FROM hybridrag_ledger.checkpoint GROUP BY 1 ORDER BY 1"
    )
    return found
