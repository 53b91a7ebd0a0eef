"""Which processes of this machine listen at a port: a server stops answering before it has written its last file."""

from __future__ import annotations

import contextlib
from pathlib import Path

_LISTEN = "0A"


def listeners(port: int, proc: Path = Path("/proc")) -> frozenset[int]:
    """Their process ids, as far as this user may see them; empty where the system does not tell."""
    sockets = _sockets(port, proc)
    if not sockets:
        return frozenset()
    found = set()
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        found.add(int(process.name))
    return frozenset(found)


def alive(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether the process still runs; one that ended and was not asked for its exit code does not."""
    try:
        return (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False


def _sockets(port: int, proc: Path) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found
