"""The private files of a provisioned server: written all or nothing, locked, and its password.

Called by the drivers (`embedded*.py`, `docker_server.py`). Reading never changes anything.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import BackendUnavailable
from hybridrag.model.secret import Secret


def write_file(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Replaces `path` by a file of mode 0600 that is on the disk before the name points to it.

    It belongs to `owner` (uid, gid), else to the owner of the folder: root may help in somebody's project
    without locking them out. The draft is made with O_EXCL, so that nobody leads root's pen through a link.
    """
    folder = path.parent.stat()
    uid, gid = owner if owner is not None else (folder.st_uid, folder.st_gid)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, uid, gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        draft.unlink()
        raise
    draft.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait_s: float, what: str) -> Iterator[int]:
    """Holds the file lock `path`, and gives its descriptor; the kernel frees it when we die."""
    import fcntl  # not on Windows, where there is no embedded server

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BackendUnavailable(
                        f"another process has been working on this {what} for {wait_s:g} s",
                        where=str(path.parent),
                        hint="wait for it to finish, then run the command again",
                    ) from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Password:
    """The password of one server: `given` by the spec, or made once and kept in `file` (0600)."""

    file: Path
    given: Secret | None
    what: str

    def read(self) -> Secret:
        if self.given is not None:
            return self.given
        try:
            return Secret(self.file.read_text(encoding="utf-8").rstrip("\n"))
        except OSError as error:
            raise BackendUnavailable(
                f'the password of the {self.what} cannot be read: "{error.filename}": {error.strerror}',
                hint="hybridrag apply (creates the server, or gives it a new password)",
            ) from None

    def keep(self) -> Secret:
        """On the disk before anything is created with it, so that no kill can lose it."""
        if self.given is None:
            if not self.file.exists() or not self.file.stat().st_size:
                write_file(self.file, secrets.token_urlsafe(32) + "\n")
            elif self.file.is_file() and self.file.stat().st_mode & 0o077:
                self.file.chmod(0o600)
        password = self.read()
        if not password.reveal() or set(password.reveal()) & set("\n\r\0"):
            raise BackendUnavailable(
                f"the password of the {self.what} is empty or has more than one line",
                hint='correct what "password" of this backend refers to, or leave it out of the spec',
            )
        return password
