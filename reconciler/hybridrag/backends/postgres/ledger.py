"""Our own two small tables on the target: whose a workspace is, and how far a copy came.

They live on the target because a checkpoint must commit in the same transaction as the rows it counts. Their
schema must not be called like a user: Postgres puts the schema "$user" first in its search path, and LightRAG's
tables would land in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import asyncpg

_DDL = """
CREATE SCHEMA IF NOT EXISTS hybridrag_ledger;
CREATE TABLE IF NOT EXISTS hybridrag_ledger.migration (
    workspace          text PRIMARY KEY,
    migration_id       text NOT NULL,
    source_fingerprint text NOT NULL,
    state              text NOT NULL CHECK (state IN ('copying', 'copied', 'verified', 'switched')),
    indexes            jsonb NOT NULL DEFAULT '{}',
    started_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS hybridrag_ledger.checkpoint (
    workspace    text NOT NULL,
    namespace    text NOT NULL,
    records      bigint NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, namespace)
);
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """One row of `hybridrag_ledger.migration`; `indexes` maps an index name to the statement that creates it."""

    migration_id: str
    state: str
    indexes: dict[str, str]


class Ledger:
    """The two tables as seen from one workspace, through the writer's connection."""

    def __init__(self, opened: asyncpg.Connection, workspace: str) -> None:
        self._opened = opened
        self._workspace = workspace

    async def lock(self) -> bool:
        """Take the session's advisory lock on this workspace; False while another session holds it."""
        return bool(
            await self._opened.fetchval(
                "SELECT pg_try_advisory_lock(hashtext('hybridrag'), hashtext($1))", self._workspace
            )
        )

    async def create(self) -> None:
        await self._opened.execute(_DDL)

    async def mark(self) -> Mark | None:
        row = await self._opened.fetchrow(
            "SELECT migration_id, state, indexes::text FROM hybridrag_ledger.migration WHERE workspace = $1",
            self._workspace,
        )
        return Mark(row[0], row[1], json.loads(row[2])) if row else None

    async def begin(self, migration_id: str, fingerprint: str, indexes: dict[str, str]) -> None:
        await self._opened.execute(
            "INSERT INTO hybridrag_ledger.migration (workspace, migration_id, source_fingerprint, state, indexes) "
            "VALUES ($1, $2, $3, 'copying', $4::jsonb)",
            self._workspace,
            migration_id,
            fingerprint,
            json.dumps(indexes),
        )

    async def forget(self, migration_id: str, *, kept: bool = False) -> bool:
        """Drop an unfinished migration's marks; False when it is not there any more, or was switched to meanwhile.

        `kept`: a finished one as well, whose copy does not serve any more.
        """
        gone = await self._opened.fetchval(
            "DELETE FROM hybridrag_ledger.migration WHERE workspace = $1 AND migration_id = $2 "
            "AND (state <> 'switched' OR $3) RETURNING true",
            self._workspace,
            migration_id,
            kept,
        )
        await self._opened.execute(
            "DELETE FROM hybridrag_ledger.checkpoint WHERE workspace = $1", self._workspace
        )
        return bool(gone)

    async def advance(self, migration_id: str, state: str) -> bool:
        """Mark how far a migration is; False when the workspace is not (any more) this migration's."""
        return bool(
            await self._opened.fetchval(
                "UPDATE hybridrag_ledger.migration SET state = $3, updated_at = now() "
                "WHERE workspace = $1 AND migration_id = $2 RETURNING true",
                self._workspace,
                migration_id,
                state,
            )
        )

    async def checkpoint(self, namespace: str, records: int) -> None:
        await self._opened.execute(
            "INSERT INTO hybridrag_ledger.checkpoint (workspace, namespace, records) VALUES ($1, $2, $3) "
            "ON CONFLICT (workspace, namespace) DO UPDATE SET records = EXCLUDED.records, updated_at = now()",
            self._workspace,
            namespace,
            records,
        )

    async def checkpoints(self) -> dict[str, int]:
        rows = await self._opened.fetch(
            "SELECT namespace, records FROM hybridrag_ledger.checkpoint WHERE workspace = $1", self._workspace
        )
        return {row["namespace"]: row["records"] for row in rows}
