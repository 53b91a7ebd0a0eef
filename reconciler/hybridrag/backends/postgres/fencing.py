"""The fence on a server: an earlier holder of our run's lease, stalled or cut off, writes there no more.

Every session of a run bears its fence in its name. Who comes later first notes its own number, then ends the sessions
of those before it: a session that was open is gone, and one that is opened afterwards sees the number.
"""

from __future__ import annotations

import asyncpg

from hybridrag.errors import LeaseHeld
from hybridrag.model.fence import CURRENT, Fence

DDL = """
CREATE TABLE IF NOT EXISTS hybridrag_ledger.fence (
    state      text PRIMARY KEY,
    number     bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
"""
HOLDS = "NOT EXISTS (SELECT FROM hybridrag_ledger.fence WHERE state = {state} AND number > {number})"
"""A condition on whatever a batch or a mark changes."""
_NOTE = """
INSERT INTO hybridrag_ledger.fence AS known (state, number) VALUES ($1, $2)
ON CONFLICT (state) DO UPDATE SET number = greatest(known.number, excluded.number), updated_at = now()
RETURNING number
"""
_END_EARLIER = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND usename = current_user
  AND CASE WHEN application_name ~ ('^hybridrag [a-z]+ ' || $1 || '[.][0-9]{1,18}$')
      THEN split_part(application_name, '.', 2)::bigint < $2 ELSE false END
"""


def session_name(purpose: str) -> str:
    """What a session is called, for whoever looks at the server, and for the run that comes later."""
    fence = CURRENT.get()
    return f"hybridrag {purpose} {fence.label}" if fence else f"hybridrag {purpose}"


async def note(opened: asyncpg.Connection, fence: Fence) -> None:
    """Show our number. Raises LeaseHeld when a later one is there."""
    if await opened.fetchval(_NOTE, fence.state, fence.number) > fence.number:
        fence.check()
        raise LeaseHeld("a later run of this environment writes there by now", hint="run hybridrag plan")


async def end_earlier(opened: asyncpg.Connection, fence: Fence) -> bool:
    """Whether no session of an earlier holder is left; those that are there are told to end."""
    return not await opened.fetchval(_END_EARLIER, fence.state, fence.number)
