"""Which place a workspace has, whatever backend it is reached through.

A Milvus server has no name of its own that every version tells. Ours is a random one in our ledger, made when a database is
first written to. Until then a database is known by its first collection, where the server numbers them (milvus-lite does
not), else by the address that the server's name leads to.
"""

from __future__ import annotations

from collections.abc import Collection

from hybridrag.backends.kit.hosts import resolved
from hybridrag.model.address import Address
from hybridrag.model.data import Slot

from . import ledger
from .client import Connection, Endpoint, connection
from .collections import LEDGER
from .declared import ENGINE, host_and_port


async def addresses(endpoint: Endpoint, workspace: str) -> dict[Slot, Address]:
    """Of the one slot that Milvus holds. Read-only. Raises BackendUnavailable."""
    async with connection(endpoint) as opened:
        existing = set(await opened.call("list_collections"))
        return await addresses_in(opened, endpoint, workspace, existing)


async def addresses_in(
    opened: Connection, endpoint: Endpoint, workspace: str, existing: Collection[str]
) -> dict[Slot, Address]:
    """The same over an open connection; `existing` are the collections of the database."""
    server = await _server(opened, endpoint, existing)
    return {Slot.VECTOR: Address(engine=ENGINE, server=server, area=endpoint.database, owner=workspace)}


async def _server(opened: Connection, endpoint: Endpoint, existing: Collection[str]) -> str:
    named = LEDGER in existing and await ledger.rows(opened, ledger.PLACE)
    if named:
        return f"named {named[ledger.PLACE]['id']}"
    if existing:
        described = await opened.call("describe_collection", min(existing))
        if number := described.get("collection_id"):
            return f"collection {number}"
    return await resolved(*host_and_port(endpoint.uri))


async def identify(endpoint: Endpoint) -> None:
    """Give the database its name where it has none: from now on every way to it leads to one address."""
    async with connection(endpoint, patience_s=15) as opened:
        await ledger.create(opened)
