"""The only list of actions, and the only order."""

from __future__ import annotations

from .base import STREAMS, Action, Context
from .migrate import Migrate
from .pause import Pause
from .provision import Provision
from .resume import Resume
from .switch import Switch
from .validate import Validate
from .verify import Verify

ACTIONS: tuple[Action, ...] = (Provision(), Validate(), Pause(), Migrate(), Verify(), Switch(), Resume())
ORDER: tuple[str, ...] = tuple(action.verb for action in ACTIONS)
BY_VERB = {action.verb: action for action in ACTIONS}

__all__ = ["ACTIONS", "BY_VERB", "ORDER", "STREAMS", "Action", "Context"]
