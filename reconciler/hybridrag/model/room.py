"""Room on a volume: how much is free, and how much of it a migration must leave free."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .facts import Value

_RESERVE = (256 << 20, 4 << 30)
STATE_BYTES = 32 << 20
"""What a run may write into the state folder: the journal with the digests of a source, twice while it is rewritten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Bytes of one volume, free for an ordinary account and in all; `where` names it for a human."""

    free: int
    total: int
    where: str

    @classmethod
    def holding(cls, path: Path) -> Room | None:
        """The volume of `path`, or of the nearest folder above it that exists. None when nobody can tell."""
        for place in (path, *path.parents):
            try:
                usage = shutil.disk_usage(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return None
            return cls(free=usage.free, total=usage.total, where=f'the volume of "{path}"')
        return None

    def facts(self) -> dict[str, Value]:
        """As details of an observation."""
        return {"disk_free": self.free, "disk_total": self.total, "disk": self.where}

    @property
    def reserve(self) -> int:
        """Bytes that stay free: 2 %, from 256 MiB to 4 GiB, and at most a quarter of a small volume.

        A server needs them to end its own work: one that cannot write its log anymore stops altogether.
        """
        least, most = _RESERVE
        return min(max(self.total // 50, least), most, self.total // 4)


def shown(count: int) -> str:
    """Bytes as megabytes, rounded: sizes beside each other in one unit."""
    return f"{count / 1e6:,.0f} MB"
