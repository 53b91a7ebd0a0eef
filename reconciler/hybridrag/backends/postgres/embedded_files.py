"""The small files of an embedded Postgres: what we wrote down, and what the server wrote down.

Called by `embedded.py`; `Record` also by `docker_server.py`. Reading never changes anything; writing is all or
nothing, so that a kill at any moment leaves either the old file or the new one.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from .server_files import write_file

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """server.json: what must be remembered while the server is down. None means not known."""

    port: int | None = None
    data_dir: str | None = None
    version: str | None = None

    @classmethod
    def read(cls, path: Path) -> Record:
        """An absent or damaged file reads as an empty record: all of it can be found again."""
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return cls()
        if not isinstance(said, dict):
            return cls()
        port, data_dir, version = (said.get(key) for key in ("port", "data_dir", "version"))
        return cls(
            port=port if isinstance(port, int) else None,
            data_dir=data_dir if isinstance(data_dir, str) else None,
            version=version if isinstance(version, str) else None,
        )

    def write(self, path: Path) -> None:
        if Record.read(path) != self:
            write_file(path, json.dumps(asdict(self), indent=2) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """postmaster.pid: what the server wrote when it started. It stays behind after a crash."""

    pid: int
    port: int | None
    alive: bool
    ready: bool

    @classmethod
    def read(cls, data: Path) -> Postmaster | None:
        """None when there is no such file. Lines: pid, data dir, start, port, socket, address, memory, status."""
        try:
            lines = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
            pid = abs(int(lines[0]))  # negative: a single-user session
        except (FileNotFoundError, ValueError, IndexError):
            return None
        port = int(lines[3]) if len(lines) > 3 and lines[3].isdigit() else None
        ready = len(lines) > 7 and lines[7].strip() == "ready"
        return cls(pid=pid, port=port, alive=_exists(pid) and _works_in(pid, data), ready=ready)

    def accepts(self) -> bool:
        """Whether it takes connections. Says nothing to the server, so nothing is logged there."""
        if not self.ready or self.port is None:  # during recovery the port is open, and every login refused
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError:
            return False
        return True


def forget_stranger(data: Path, postmaster: Postmaster) -> None:
    """Removes a postmaster.pid whose process id now belongs to some other program.

    Postgres itself refuses to start then, for ever. Left alone when the id is free (Postgres decides
    better: it also looks for orphaned children), and when any process still works in `data`.
    """
    if postmaster.alive or not _exists(postmaster.pid) or not (_PROC / "self").exists():
        return
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    if not any(_works_in(pid, data) for pid in pids):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _works_in(pid: int, data: Path) -> bool:
    """Whether the process is a Postgres of the cluster in `data`; True when the system cannot tell."""
    if not (_PROC / "self").exists():
        return True
    process = _PROC / str(pid)
    try:
        # Its line reads: id, (name), state, …
        line = (process / "stat").read_text(errors="replace")
        name, _, rest = line.partition("(")[2].rpartition(")")
        # A zombie is a dead server whose parent does not care, such as process 1 of a container.
        if name != "postgres" or rest.split()[0] in "ZX":
            return False
        try:
            return (process / "cwd").samefile(data)
        except PermissionError:  # another user's process; root in a container may not look either
            return process.stat().st_uid in (data.stat().st_uid, 0)
    except OSError:
        return False
