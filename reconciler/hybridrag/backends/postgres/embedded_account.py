"""Which system account the embedded Postgres runs as, and the one door for its child processes.

Called by `embedded.py` and `embedded_binaries.py`. Postgres refuses to run as root, so root lends the
cluster to an unprivileged account; everybody else runs it as themselves. Nothing here may make a folder
more readable than it is, or put a secret into an argument list.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hybridrag.errors import BackendUnavailable

SHARED = Path("/var/lib/hybridrag")
"""Where root keeps what the account must reach when the project's own folder is closed to it."""

_CANDIDATES = ("postgres", "nobody")

# Nothing of the caller's environment: PGHOST, PGOPTIONS, PGDATA or a locale must not steer our server.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An unprivileged account that root runs the server as."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether the account may walk down to `folder`; asked of the kernel, so that ACLs count too."""
        return run(Path("/bin/sh"), "-c", 'test -x "$1"', "sh", str(folder), account=self).returncode == 0

    def give(self, path: Path) -> None:
        """Hands `path` and all below it to the account. Links are handed over themselves, never followed."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for folder, folders, files in os.walk(path):
            for entry in (*folders, *files):
                os.chown(Path(folder) / entry, self.uid, self.gid, follow_symlinks=False)


def account_for(data: Path | None) -> Account | None:
    """The account for the cluster in `data` (None: not created yet). None means: run as ourselves.

    An existing cluster keeps its owner, also when a better account has appeared since: Postgres insists
    on owning its folder.
    """
    if os.geteuid() != 0:
        if data is not None and (owner := data.stat().st_uid) != os.geteuid():
            raise BackendUnavailable(
                f'the embedded Postgres in "{data}" belongs to user id {owner}, you are {os.geteuid()}',
                hint="run the command as that user, or as root",
            )
        return None
    import pwd  # not on Windows, where nobody is root

    if data is not None and (owner := data.stat().st_uid) != 0:
        return Account(name=str(owner), uid=owner, gid=data.stat().st_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise BackendUnavailable(
        'Postgres refuses to run as root, and there is neither a "postgres" nor a "nobody" account',
        hint="useradd --system postgres, or run the command as an ordinary user",
    )


def passable_folder(folder: Path) -> None:
    """Makes `folder` if absent; root's are passable (0711, not listable) so that the account gets through.

    A folder that exists keeps its mode, and so does every parent.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        folder.chmod(0o711)


def run(
    program: Path,
    *args: str,
    account: Account | None,
    env: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
    text: str = "",
    log: IO[bytes] | None = None,
    timeout: float | None = None,
    holding: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `program` as `account` (None: as ourselves) in a session of its own, with a bare environment.

    The output is captured, unless `log` is given: a daemon that outlives us must hold a file, not a pipe
    that someone waits for. `holding` is a descriptor the child keeps open, so that a lock on it lasts as
    long as the child does even if we are killed.

    Raises OSError when the program cannot be run, subprocess.TimeoutExpired after `timeout` seconds.
    """
    return subprocess.run(
        [str(program), *args],
        env={**_ENVIRONMENT, **(env or {})},
        cwd=cwd,
        input=None if log else text,
        stdin=subprocess.DEVNULL if log else None,
        stdout=log or subprocess.PIPE,
        stderr=log or subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
        start_new_session=True,
        umask=0o077,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        pass_fds=() if holding is None else (holding,),
    )
