"""What the Postgres backend asks of a server that this tool provisions: the one protocol of all drivers.

Implemented by `embedded.py` and `docker_server.py`, called by `backend.py` (in a thread: everything here
blocks). A third driver is a file with these seven methods, its model in `spec.py`, and a line in `drivers.py`.
"""

from __future__ import annotations

from typing import Protocol

from hybridrag.model.facts import Facts
from hybridrag.model.room import Room
from hybridrag.model.secret import Secret

LISTENING = frozenset({"running", "unhealthy"})
"""States in which it is worth to try a connection."""


DECISIVE = ("port", "server", "change", "differs", "refusal", "way_out", "restarts", "leaves")
"""What the planner decides by, beside `state`."""


class ServerDriver(Protocol):
    """One server. Every method but `observe` and `room` raises BackendUnavailable with the next command to run."""

    def observe(self) -> Facts:
        """What is there now. Writes nothing, starts nothing, never raises.

        Always `state` (absent, stopped, running, broken, or the driver's own word) and `port`. Of `DECISIVE`
        where there is something to say: `server` (its name in words), `change` (update, replace or refused:
        it is not as declared), `differs` (how), `refusal` and `way_out`, `restarts` (open connections would
        be closed), `leaves` (data that would no longer be served). All else only informs.
        """
        ...

    def port(self) -> int | None:
        """The port it listens on, or last did; None where it never had one."""
        ...

    def room(self) -> Room | None:
        """The volume that holds its data, or will; see `model.ports.Backend.room`."""
        ...

    def password(self) -> Secret: ...

    def ensure(self) -> None:
        """Creates, changes, repairs and starts, whatever is missing. Twice is once; may be killed anywhere."""
        ...

    def start(self) -> None:
        """Starts what exists."""
        ...

    def stop(self) -> None:
        """Stops it, with nothing lost. Absent or stopped is fine."""
        ...
