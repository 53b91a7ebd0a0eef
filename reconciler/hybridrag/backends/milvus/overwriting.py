"""Make way for a migration: drop the collections of one workspace, of whatever model; no other has a part in them."""

from __future__ import annotations

from hybridrag.backends.kit.marks import check_overwritable
from hybridrag.model.selection import Embedding

from .client import Endpoint
from .collections import collection_names
from .ledger import Ledger
from .observe import holding
from .writer import drop, locked


async def make_way(
    endpoint: Endpoint, workspace: str, embedding: Embedding, migration_id: str | None
) -> None:
    """See `Store.make_way`. The mark goes first: what a kill leaves behind is nobody's, and is asked for again."""
    names = collection_names(workspace, embedding)
    async with locked(endpoint, workspace) as (opened, lock):
        ledger = Ledger(opened, workspace)
        check_overwritable(await ledger.mark(), migration_id, ledger.place)
        await ledger.forget()
        others = await holding(opened, set(await opened.call("list_collections")), workspace, names)
        await drop(opened, lock, [*names.values(), *others])
