"""Room for an external server's data, as far as the server is on this machine and lets us look. Writes nothing."""

from __future__ import annotations

import struct
from pathlib import Path

from hybridrag.model.room import Room

from .client import connection
from .endpoint import Endpoint

_HERE = ("127.0.0.1", "localhost", "::1")
_PLACE = """
SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER') THEN current_setting('data_directory') END AS folder,
       (SELECT system_identifier FROM pg_control_system()) AS identifier
"""


async def room_beside_us(endpoint: Endpoint) -> Room | None:
    """The volume of its data directory; None for one that is elsewhere, or closed to us. Raises BackendUnavailable."""
    if not all(host in _HERE or host.startswith("/") for host, _ in endpoint.hosts):
        return None
    async with connection(endpoint, purpose="observe", read_only=True) as opened:
        found = await opened.fetchrow(_PLACE)
    if found["folder"] is None:
        return None
    folder = Path(found["folder"])
    # A tunnel or a container's port also ends at 127.0.0.1, and our own machine may have a folder of that name.
    return Room.holding(folder) if _identifier(folder) == found["identifier"] else None


def _identifier(folder: Path) -> int | None:
    """The cluster's own number, which initdb makes; it opens its control file."""
    try:
        with (folder / "global" / "pg_control").open("rb") as file:
            (number,) = struct.unpack("=q", file.read(8))
    except (OSError, struct.error):
        return None
    return int(number)
