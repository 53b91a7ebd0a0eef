"""Warnings that a volume will not hold what is planned. Pure.

Free space is a detail of an observation and never a fact: it changes all the time, and must not make a plan stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hybridrag.model.facts import Facts, Observation
from hybridrag.model.plan import Move, Step
from hybridrag.model.room import STATE_BYTES, Room, shown

from .estimate import NEW_SERVER_BYTES, cautious


def room_warnings(moves: Mapping[str, Move], steps: Iterable[Step], observation: Observation) -> list[str]:
    """One warning for each server whose volume is too small for all that goes there, and for the state folder."""
    needs: dict[str, int] = {}
    for step in steps:
        if step.verb == "migrate" and step.disk_bytes:
            name = moves[step.target].target
            needs[name] = needs.get(name, 0) + cautious(step.disk_bytes)
    found = []
    for name, need in needs.items():
        if observation.of(f"backend/{name}").get("state") == "absent":
            need += NEW_SERVER_BYTES
        room = _room(observation.detail(f"backend/{name}"))
        if room is not None and need + room.reserve > room.free:
            found.append(
                f'backend "{name}" may not have the room: up to {shown(need)} are needed and {shown(room.reserve)} stay '
                f"in reserve, {shown(room.free)} are free on {room.where}"
            )
    state = _room(observation.detail("state"))
    if needs and state is not None and state.free < STATE_BYTES:
        found.append(
            f"the state folder needs {shown(STATE_BYTES)}, {shown(state.free)} are free on {state.where}"
        )
    return found


def _room(details: Facts) -> Room | None:
    free, total, where = (details.get(name) for name in ("disk_free", "disk_total", "disk"))
    if isinstance(free, int) and isinstance(total, int):
        return Room(free=free, total=total, where=str(where))
    return None
