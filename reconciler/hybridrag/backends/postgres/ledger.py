"""Our own small tables on the target: whose a workspace's slots are, and how far a copy came.

They live on the target because a checkpoint must commit in the same transaction as the rows it counts. Slots move
separately, so every slot has its own mark. Their schema must not be called like a user: Postgres puts the schema
"$user" first in its search path, and LightRAG's tables would land in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import asyncpg

from hybridrag.backends.kit.marks import check_advance, check_patchable, withdrawn
from hybridrag.model.data import ALL_SLOTS, BY_NAME, Range, Slot, streams_of
from hybridrag.model.fence import CURRENT
from hybridrag.model.marks import Mark, MarkState, furthest_behind
from hybridrag.model.plan import KEPT

from . import carried, fencing
from .graphs import IN_TABLES, Graph

STATES = tuple(state.value for state in MarkState if state is not MarkState.PUBLISHING)
"""Rows are put in place at once, so that nothing is ever published half."""
_SWITCHED = MarkState.SWITCHED.value
_ROW = f"""
    workspace          text NOT NULL,
    slot               text NOT NULL CHECK (slot IN ({", ".join(f"'{slot.value}'" for slot in Slot)})),
    migration_id       text NOT NULL,
    source_fingerprint text NOT NULL,
    state              text NOT NULL CHECK (state IN ({", ".join(f"'{state}'" for state in STATES)})),
    indexes            jsonb NOT NULL DEFAULT '{{}}',
    started_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, slot)
"""
_DDL = f"""
CREATE SCHEMA IF NOT EXISTS hybridrag_ledger;
CREATE TABLE IF NOT EXISTS hybridrag_ledger.migration ({_ROW});
CREATE TABLE IF NOT EXISTS hybridrag_ledger.checkpoint (
    workspace    text NOT NULL,
    namespace    text NOT NULL,
    records      bigint NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    first        bigint NOT NULL DEFAULT 0,
    last         bigint,
    PRIMARY KEY (workspace, namespace, first)
);
{carried.DDL}
{fencing.DDL}
"""
VISIBLE = """
SELECT EXISTS (
    SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'hybridrag_ledger' AND c.relname = $1
      AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
"""
"""Whether one of the tables is there for this user; one who only reads a source may not see another user's ledger."""
_ONE_MARK_A_WORKSPACE = """
SELECT to_regclass('hybridrag_ledger.migration') IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM pg_attribute
    WHERE attrelid = to_regclass('hybridrag_ledger.migration') AND attname = 'slot' AND NOT attisdropped)
"""
_TO_ONE_A_SLOT = f"""
ALTER TABLE hybridrag_ledger.migration RENAME TO migration_by_workspace;
ALTER INDEX hybridrag_ledger.migration_pkey RENAME TO migration_by_workspace_pkey;
CREATE TABLE hybridrag_ledger.migration ({_ROW});
INSERT INTO hybridrag_ledger.migration
    SELECT workspace, slot, migration_id, source_fingerprint, state,
           CASE slot WHEN 'vector' THEN indexes ELSE '{{}}' END, started_at, updated_at
    FROM hybridrag_ledger.migration_by_workspace,
         unnest(ARRAY[{", ".join(f"'{slot.value}'" for slot in Slot)}]) AS slot;
DROP TABLE hybridrag_ledger.migration_by_workspace;
"""

_ONE_RANGE_A_STREAM = """
SELECT to_regclass('hybridrag_ledger.checkpoint') IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM pg_attribute
    WHERE attrelid = to_regclass('hybridrag_ledger.checkpoint') AND attname = 'first' AND NOT attisdropped)
"""
_TO_RANGES = """
ALTER TABLE hybridrag_ledger.checkpoint
    ADD COLUMN first bigint NOT NULL DEFAULT 0, ADD COLUMN last bigint,
    DROP CONSTRAINT checkpoint_pkey, ADD PRIMARY KEY (workspace, namespace, first);
"""


_SLOTS = "(workspace, slot) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
_STREAMS = "(workspace, namespace) IN (SELECT * FROM unnest($1::text[], $2::text[]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMark(Mark):
    """The mark on one slot; `indexes` maps an index name to the statement that creates it (vector slot only)."""

    indexes: Mapping[str, str]


def owners_of(workspace: str, slots: Iterable[Slot], graph: Graph) -> dict[Slot, str]:
    """Under which name the marks of some slots stand: the workspace, but a graph of its own under its own."""
    return {slot: graph.owner(workspace) if slot is Slot.GRAPH else workspace for slot in slots}


async def marks_of(
    opened: asyncpg.Connection, workspace: str, slots: Iterable[Slot], graph: Graph = IN_TABLES
) -> dict[Slot, SlotMark]:
    """The marks on some slots of a workspace. Reads the tables of an earlier version as well, and writes nothing."""
    if not await opened.fetchval(VISIBLE, "migration"):
        return {}
    owners = owners_of(workspace, slots, graph)
    rows = await opened.fetch(
        "SELECT m.*, m.indexes::text AS dropped FROM hybridrag_ledger.migration m WHERE workspace = ANY($1)",
        list(set(owners.values())),
    )
    found: dict[Slot, SlotMark] = {}
    for row in rows:
        mark = SlotMark(
            migration=row["migration_id"],
            state=MarkState(row["state"]),
            source_fingerprint=row["source_fingerprint"],
            indexes=json.loads(row["dropped"]),
        )
        # Before slots moved separately, one row spoke for all of them.
        named = {Slot(row["slot"])} if row.get("slot") else ALL_SLOTS
        found.update({slot: mark for slot in named if owners.get(slot) == row["workspace"]})
    return found


def together(
    marks: Mapping[Slot, SlotMark], slots: Iterable[Slot]
) -> tuple[str | None, str | None, str | None]:
    """(migration, state, fingerprint of the source) of slots together; what they do not agree on is None.

    The state is that of the slot which is furthest behind; a slot without a mark is behind all others.
    """
    if not marks:
        return None, None, None
    ids = {mark.migration for mark in marks.values()}
    prints = {mark.source_fingerprint for mark in marks.values()}
    whole = set(marks) == set(slots)
    state = furthest_behind(mark.state for mark in marks.values()) if whole else MarkState.COPYING
    return (
        ids.pop() if len(ids) == 1 else None,
        state.value,
        prints.pop() if len(prints) == 1 else None,
    )


class Ledger:
    """The two tables as seen from some slots of one workspace, through the writer's connection."""

    def __init__(
        self,
        opened: asyncpg.Connection,
        workspace: str,
        slots: Iterable[Slot] = ALL_SLOTS,
        graph: Graph = IN_TABLES,
    ) -> None:
        self._opened = opened
        self._workspace = workspace
        self._graph = graph
        self._slots = sorted(slots)
        self._fence = CURRENT.get()
        self._names = [slot.value for slot in self._slots]
        self._owner = owners_of(workspace, self._slots, graph)
        self._owners = [self._owner[slot] for slot in self._slots]
        self._streams = list(streams_of(self._slots))
        self._stream_owners = [self._owner[BY_NAME[name].slot] for name in self._streams]

    @property
    def _shown(self) -> tuple[str, int]:
        return (self._fence.state, self._fence.number) if self._fence else ("", 0)

    async def lock(self) -> bool:
        """Take the session's advisory locks on these slots; False, and none of them, while another session holds one.

        Sessions of a run that ours has taken over are ended. Raises LeaseHeld when ours was itself.
        """
        if self._fence is not None:
            if await self._opened.fetchval(VISIBLE, "fence"):
                await fencing.note(self._opened, self._fence)
            if not await fencing.end_earlier(self._opened, self._fence):
                return False
        held: list[str] = []
        for name, owner in zip(self._names, self._owners, strict=True):
            key = f"{name} {owner}"
            if not await self._opened.fetchval(
                "SELECT pg_try_advisory_lock(hashtext('hybridrag'), hashtext($1))", key
            ):
                for other in held:
                    await self._opened.fetchval(
                        "SELECT pg_advisory_unlock(hashtext('hybridrag'), hashtext($1))", other
                    )
                return False
            held.append(key)
        return True

    async def lock_schema(self) -> bool:
        """Take the lock on creating tables in this database; False while another session holds it.

        Never wait for it in the server: LightRAG's CREATE INDEX CONCURRENTLY would wait for whoever waits.
        """
        return bool(
            await self._opened.fetchval(
                "SELECT pg_try_advisory_lock(hashtext('hybridrag'), hashtext('schema'))"
            )
        )

    async def unlock_schema(self) -> None:
        await self._opened.execute("SELECT pg_advisory_unlock(hashtext('hybridrag'), hashtext('schema'))")

    async def create(self) -> None:
        """Make the tables, or bring those of an earlier version up to date with everything they hold."""
        async with self._opened.transaction():
            # Two writers of different slots may come here at once; CREATE … IF NOT EXISTS does not bear that.
            await self._opened.execute("SELECT pg_advisory_xact_lock(hashtext('hybridrag ledger'))")
            if await self._opened.fetchval(_ONE_MARK_A_WORKSPACE):
                await self._opened.execute(_TO_ONE_A_SLOT)
            if await self._opened.fetchval(_ONE_RANGE_A_STREAM):
                await self._opened.execute(_TO_RANGES)
            await self._opened.execute(_DDL)
            if self._fence is not None:
                await fencing.note(self._opened, self._fence)

    async def marks(self) -> dict[Slot, SlotMark]:
        return await marks_of(self._opened, self._workspace, self._slots, self._graph)

    async def begin(self, migration_id: str, fingerprint: str, indexes: dict[str, str]) -> None:
        """Mark all slots as being copied to; `indexes` were dropped for it."""
        for slot in self._slots:
            await self._opened.execute(
                "INSERT INTO hybridrag_ledger.migration "
                "(workspace, slot, migration_id, source_fingerprint, state, indexes) "
                "VALUES ($1, $2, $3, $4, 'copying', $5::jsonb)",
                self._owner[slot],
                slot.value,
                migration_id,
                fingerprint,
                json.dumps(indexes if slot is Slot.VECTOR else {}),
            )

    async def forget(self, marks: Mapping[Slot, SlotMark], *, kept: str | None = None) -> bool:
        """Drop these marks and their checkpoints; False when one is not there any more, or was switched to meanwhile.

        `kept` names a migration whose copy was switched to and does not serve any more; `KEPT` says that of all of them.
        """
        gone = [
            await self._opened.fetchval(
                "DELETE FROM hybridrag_ledger.migration WHERE workspace = $1 AND slot = $2 AND migration_id = $3 "
                f"AND (state <> '{_SWITCHED}' OR $4 IN (migration_id, $5)) RETURNING true",
                self._owner[slot],
                slot.value,
                mark.migration,
                kept,
                KEPT,
            )
            for slot, mark in marks.items()
        ]
        await self._opened.execute(
            f"DELETE FROM hybridrag_ledger.checkpoint WHERE {_STREAMS}",
            self._stream_owners,
            self._streams,
        )
        return all(gone)

    async def advance(
        self, place: str, migration_id: str, state: MarkState, fingerprint: str | None = None
    ) -> None:
        """Mark how far a migration is. `place`: this one in words.

        Raises PlanRefused, with nothing changed, where that may not be, or a slot is not (any more) this migration's.
        """
        async with self._opened.transaction():
            for mark in await self._held(migration_id):
                check_advance(mark, migration_id, state, place)
            await self._set(state, fingerprint)

    async def withdraw(self, place: str, migration_id: str) -> None:
        """See `Store.withdraw`."""
        async with self._opened.transaction():
            states = {withdrawn(mark, migration_id, place) for mark in await self._held(migration_id)}
            if states == {MarkState.VERIFIED}:
                await self._set(MarkState.VERIFIED, None)

    async def check_patchable(self, place: str, migration_id: str) -> None:
        """Raises PlanRefused unless this is the migration's whole copy, which does not serve."""
        async with self._opened.transaction():
            for mark in await self._held(migration_id):
                check_patchable(mark, migration_id, place)

    async def _held(self, migration_id: str) -> list[Mark | None]:
        """The marks of all slots, locked until the transaction ends; None for one that is not ours to change any more."""
        rows = await self._opened.fetch(
            "SELECT state, source_fingerprint FROM hybridrag_ledger.migration "
            f"WHERE {_SLOTS} AND migration_id = $3 AND {fencing.HOLDS.format(state='$4', number='$5')} FOR UPDATE",
            self._owners,
            self._names,
            migration_id,
            *self._shown,
        )
        found: list[Mark | None] = [
            Mark(migration=migration_id, source_fingerprint=row[1], state=MarkState(row[0])) for row in rows
        ]
        return found + [None] * (len(self._names) - len(found))

    async def _set(self, state: MarkState, fingerprint: str | None) -> None:
        await self._opened.execute(
            "UPDATE hybridrag_ledger.migration SET state = $3, updated_at = now(), "
            f"source_fingerprint = coalesce($4, source_fingerprint) WHERE {_SLOTS}",
            self._owners,
            self._names,
            state.value,
            fingerprint,
        )

    async def lock_lane(self) -> None:
        """For a session that writes beside the one that holds the lock: whoever takes that lock next waits for its end."""
        for name, owner in zip(self._names, self._owners, strict=True):
            await self._opened.execute(
                "SELECT pg_advisory_lock_shared(hashtext('hybridrag lane'), hashtext($1))",
                f"{name} {owner}",
            )

    async def lanes_ended(self) -> bool:
        """Whether no session of a predecessor is still writing beside the lock that we hold."""
        for name, owner in zip(self._names, self._owners, strict=True):
            if not await self._opened.fetchval(
                "SELECT CASE WHEN pg_try_advisory_lock(hashtext('hybridrag lane'), hashtext($1)) "
                "THEN pg_advisory_unlock(hashtext('hybridrag lane'), hashtext($1)) ELSE false END",
                f"{name} {owner}",
            ):
                return False
        return True

    async def fix(self, ranges: Iterable[Range]) -> None:
        """Keep these ranges; a stream that has some keeps those it has."""
        async with self._opened.transaction():
            known = {part.namespace for part in await self.ranges()}
            await self._opened.executemany(
                "INSERT INTO hybridrag_ledger.checkpoint (workspace, namespace, first, last, records) "
                "VALUES ($1, $2, $3, $4, 0)",
                [
                    (self._owner[BY_NAME[part.namespace].slot], part.namespace, part.first, part.last)
                    for part in ranges
                    if part.namespace not in known
                ],
            )

    async def checkpoint(self, part: Range, position: int) -> bool:
        """Move a range's checkpoint on; False when it is not where `part` says, or a later run is there."""
        done: str = await self._opened.execute(
            "UPDATE hybridrag_ledger.checkpoint SET records = $5, updated_at = now() "
            "WHERE workspace = $1 AND namespace = $2 AND first = $3 AND records = $4 "
            f"AND {fencing.HOLDS.format(state='$6', number='$7')}",
            self._owner[BY_NAME[part.namespace].slot],
            part.namespace,
            part.first,
            part.done - part.first,
            position - part.first,
            *self._shown,
        )
        return done == "UPDATE 1"

    async def ranges(self) -> list[Range]:
        """With how far each came."""
        rows = await self._opened.fetch(
            f"SELECT namespace, first, last, records FROM hybridrag_ledger.checkpoint WHERE {_STREAMS} "
            "ORDER BY namespace, first",
            self._stream_owners,
            self._streams,
        )
        return [Range(namespace=row[0], first=row[1], last=row[2], done=row[1] + row[3]) for row in rows]
