"""The only list of actions, and the only order."""

from __future__ import annotations

from .base import Action, Context, Part
from .catch_up import CatchUp
from .follow import Follow
from .migrate import Migrate
from .pause import Pause
from .point_back import PointBack
from .provision import Provision
from .reclaim import Reclaim
from .repair import Repair
from .resume import Resume
from .retire import Retire
from .standing import Standings
from .switch import Switch
from .validate import Validate
from .verify import Verify

ACTIONS: tuple[Action, ...] = (
    Provision(),
    Validate(),
    Reclaim(),
    Migrate(),
    Verify(),
    Follow(),
    Pause(),
    CatchUp(),
    Switch(),
    Resume(),
    PointBack(),
    Retire(),
    Repair(),
)
ONE_PART = frozenset({"validate", "reclaim", "migrate", "verify", "follow", "catch_up", "retire"})
"""Verbs whose step is about one part of a database; the others are about all of it."""
ORDER: tuple[str, ...] = tuple(action.verb for action in ACTIONS)
BY_VERB = {action.verb: action for action in ACTIONS}

__all__ = ["ACTIONS", "BY_VERB", "ONE_PART", "ORDER", "Action", "Context", "Part", "Standings"]
