"""Which place a slot has, whatever backends it is reached through: two entries of a spec may lead to one."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from hybridrag.model.address import Address, place_facts
from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts, digest_of

from .declared import ENGINE
from .graphs import Graph
from .ledger import owners_of

_CLUSTER = "SELECT c.system_identifier, k.timeline_id FROM pg_control_system() c, pg_control_checkpoint() k"
_MAY_ASK = """
SELECT has_function_privilege('pg_control_system()', 'EXECUTE')
       AND has_function_privilege('pg_control_checkpoint()', 'EXECUTE')
"""
_STARTED = "SELECT pg_postmaster_start_time()::text"
_AREA = "SELECT oid::bigint, current_schema()::text FROM pg_database WHERE datname = current_database()"


async def whereabouts(
    opened: asyncpg.Connection, workspace: str, slots: Collection[Slot], graph: Graph
) -> Facts:
    """`place/<slot>`, and `server` where the server tells who it is: equal for equal databases."""
    found = await addresses(opened, workspace, slots, graph)
    database = next(iter(found.values()), None)
    named = database is not None and await opened.fetchval(_MAY_ASK)
    server = {"server": digest_of([database.server, database.area])[:16]} if database and named else {}
    return {**server, **place_facts(found)}


async def addresses(
    opened: asyncpg.Connection, workspace: str, slots: Collection[Slot], graph: Graph
) -> dict[Slot, Address]:
    """The timeline tells a promoted copy from what it was.

    A server that does not let us ask who it is is known by the moment (µs) it was started.
    """
    if await opened.fetchval(_MAY_ASK):
        server = "{}/{}".format(*await opened.fetchrow(_CLUSTER))
    else:
        server = str(await opened.fetchval(_STARTED))
    oid, schema = await opened.fetchrow(_AREA)
    owners = owners_of(workspace, slots, graph)
    return {
        slot: Address(engine=ENGINE, server=server, area=f"{oid}/{schema}", owner=owner)
        for slot, owner in owners.items()
    }
