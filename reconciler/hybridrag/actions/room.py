"""Room while data is moved: refused where it cannot fit, stopped before a volume is full."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hybridrag.errors import BackendUnavailable
from hybridrag.model.room import STATE_BYTES, Room, shown

from .base import Context

_BYTES_S = 1e9
"""Faster than anybody fills a disk; the less is left, the sooner it is asked again."""
_ASK_S = (0.2, 5.0)


async def refuse_without_room(context: Context) -> None:
    """Raises BackendUnavailable when the rest of the data, and the reserve beside it, clearly do not fit."""
    backend = context.part.backend
    room, need = await backend.room(), context.step.disk_bytes
    if room is not None and need and need + room.reserve > room.free:
        raise BackendUnavailable(
            f'database "{context.database}" does not fit into backend "{backend.name}": about {shown(need)} are '
            f"needed and {shown(room.reserve)} must stay in reserve, {shown(room.free)} are free on {room.where}",
            hint=f"free {shown(need + room.reserve - room.free)} there, then run hybridrag apply; nothing was paused",
        )
    state = context.memory.room()
    if state is not None and state.free < STATE_BYTES:
        raise BackendUnavailable(
            f"the state folder needs {shown(STATE_BYTES)}, {shown(state.free)} are free on {state.where}",
            hint="free some there, or give the state another place (--state), then run hybridrag apply",
        )


async def stopped_before_full(context: Context, work: Coroutine[Any, Any, None]) -> None:
    """Await `work`; cancels it and raises BackendUnavailable when a volume comes down to its reserve."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_scarce(context))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return await _result(context, working)
        scarce = watching.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
    if working.cancelled() or working.exception() is not None:
        raise _stopped(*scarce, f'the copy of database "{context.database}" was stopped')
    return None


async def _result(context: Context, working: asyncio.Future[None]) -> None:
    """The work's own end; where it failed for want of room, in whatever words, that is said."""
    try:
        working.result()
    except BackendUnavailable as error:
        if (short := _short(await _rooms(context))) is None:
            raise
        raise _stopped(*short, error.what) from error


def _stopped(room: Room, reserve: int, what: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"only {shown(room.free)} are free on {room.where} (its reserve is {shown(reserve)}): {what}",
        hint="free space there, then run hybridrag apply: it goes on from the checkpoint",
    )


async def _scarce(context: Context) -> tuple[Room, int]:
    """Returns when a volume is down to its reserve: that volume, that reserve."""
    while True:
        rooms = await _rooms(context)
        if (short := _short(rooms)) is not None:
            return short
        least, most = _ASK_S
        spare = min((room.free - reserve for room, reserve in rooms), default=_BYTES_S * most)
        await asyncio.sleep(min(max(spare / _BYTES_S, least), most))


async def _rooms(context: Context) -> list[tuple[Room, int]]:
    """The volumes that a migration writes to, as far as they are known, each with what must stay free."""
    server, state = await context.part.backend.room(), context.memory.room()
    rooms = [] if server is None else [(server, server.reserve)]
    return rooms if state is None else [*rooms, (state, STATE_BYTES // 2)]


def _short(rooms: list[tuple[Room, int]]) -> tuple[Room, int] | None:
    return next(((room, reserve) for room, reserve in rooms if room.free < reserve), None)
