"""Which place a slot has, whatever backends it is reached through: two entries of a spec may lead to one."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts, digest_of

from .graphs import Graph
from .ledger import owners_of

_DATABASE = """
SELECT c.system_identifier, k.timeline_id, d.oid::bigint, current_schema()::text
FROM pg_control_system() c, pg_control_checkpoint() k, pg_database d WHERE d.datname = current_database()
"""
_MAY_ASK = """
SELECT has_function_privilege('pg_control_system()', 'EXECUTE')
       AND has_function_privilege('pg_control_checkpoint()', 'EXECUTE')
"""


async def whereabouts(
    opened: asyncpg.Connection, workspace: str, slots: Collection[Slot], graph: Graph
) -> Facts:
    """`server`, and `place/<slot>`, equal for equal places. The timeline tells a promoted copy from what it was."""
    if not await opened.fetchval(_MAY_ASK):
        return {}
    row = await opened.fetchrow(_DATABASE)
    owners = owners_of(workspace, slots, graph)
    places = {f"place/{slot.value}": digest_of([*row, owners[slot]])[:16] for slot in sorted(owners)}
    return {"server": digest_of(list(row))[:16], **places}
