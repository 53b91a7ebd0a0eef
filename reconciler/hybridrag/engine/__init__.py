"""Observe -> plan -> run -> observe again. Emits events and never prints."""

from __future__ import annotations

from .health import health
from .planning import Planned, plan_world
from .running import Run, RunReport
from .status import Status, status
from .stopping import Stop
from .verifying import verify_database
from .world import World

__all__ = [
    "Planned",
    "Run",
    "RunReport",
    "Status",
    "Stop",
    "World",
    "health",
    "plan_world",
    "status",
    "verify_database",
]
