"""Our own small collection in the same database: whose a workspace is, and how far a copy came.

There are no transactions. A row is replaced whole, so that a mark and its checkpoints are always of one moment; it
is written after the records it counts, and records are written by their key: repeating a batch changes nothing.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from hybridrag.backends.kit.marks import check_advance, withdrawn
from hybridrag.backends.kit.refusals import workspace_in
from hybridrag.model import fence
from hybridrag.model.marks import Mark, MarkState, state_of

from .client import Connection, driver, quoted
from .collections import LEDGER

_TEXT = 65535
ROWS = 1000
PLACE = "place"
"""Key of the row that names this database, for good: a server has no name of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceMark(Mark):
    """What stands on a workspace. `records` are the committed ones by namespace."""

    records: dict[str, int] = field(default_factory=dict)


async def create(opened: Connection) -> None:
    """Make the collection where it does not exist, and the name of the database in it; idempotent."""
    if not await opened.call("has_collection", LEDGER):
        library = driver()
        kind, column = library.DataType, library.FieldSchema
        schema = library.CollectionSchema(
            [
                column("id", kind.VARCHAR, max_length=1024, is_primary=True),
                column("document", kind.VARCHAR, max_length=_TEXT),
                column("vector", kind.FLOAT_VECTOR, dim=2),  # a collection cannot be without one
            ],
            description="hybridrag: migrations and their checkpoints",
        )
        await opened.call("create_collection", LEDGER, schema=schema, consistency_level="Strong")
    if not await opened.call("list_indexes", LEDGER):
        await opened.call("create_index", LEDGER, _indexes())
    await opened.call("load_collection", LEDGER)
    if PLACE not in await rows(opened, PLACE):
        await put(opened, PLACE, {"id": secrets.token_hex(16)})


def _indexes() -> Any:
    """The index that the collection must have to be loaded."""
    indexes = driver().MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="L2", params={})
    return indexes


async def put(opened: Connection, key: str, document: dict[str, Any]) -> None:
    """Write one row, whole. Raises LeaseHeld when the run that we are in was taken over."""
    fence.check()
    row = {"id": key, "document": json.dumps(document), "vector": [0.0, 0.0]}
    await opened.call("upsert", LEDGER, [row])


async def rows(opened: Connection, prefix: str) -> dict[str, dict[str, Any]]:
    """Rows whose id begins with a prefix, as of now."""
    # "~" is above every character of our keys.
    where = f"id >= {quoted(prefix)} and id < {quoted(prefix + '~')}"
    found = await opened.query(LEDGER, where, ["id", "document"], ROWS)
    return {row["id"]: json.loads(row["document"]) for row in found}


class Ledger:
    """The collection as seen from one workspace."""

    def __init__(self, opened: Connection, workspace: str) -> None:
        self._opened = opened
        self._key = f"mark:{workspace}"
        self.place = workspace_in(workspace, opened.backend)

    async def mark(self) -> WorkspaceMark | None:
        if not await self._opened.call("has_collection", LEDGER):
            return None
        where = f"id == {quoted(self._key)}"
        found = await self._opened.query(LEDGER, where, ["id", "document"], 1)
        if not found:
            return None
        document = json.loads(found[0]["document"])
        return WorkspaceMark(**{**document, "state": state_of(document["state"], self.place)})

    async def put(self, mark: WorkspaceMark) -> None:
        document = {
            "migration": mark.migration,
            "source_fingerprint": mark.source_fingerprint,
            "state": mark.state.value,
            "records": mark.records,
        }
        await put(self._opened, self._key, document)

    async def forget(self) -> None:
        await self._opened.call("delete", LEDGER, ids=[self._key])

    async def advance(self, migration: str, state: MarkState, fingerprint: str | None = None) -> None:
        """Mark how far a migration is. Raises PlanRefused where that may not be, or the workspace is another's."""
        mark = await self.mark()
        check_advance(mark, migration, state, self.place)
        if mark is not None:
            state_of_source = fingerprint or mark.source_fingerprint
            await self.put(replace(mark, state=state, source_fingerprint=state_of_source))

    async def withdraw(self, migration: str) -> None:
        """See `Store.withdraw`."""
        mark = await self.mark()
        state = withdrawn(mark, migration, self.place)
        if mark is not None and mark.state is not state:
            await self.put(replace(mark, state=state))
