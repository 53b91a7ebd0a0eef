"""A secret given on the command line: a reference to one, or the value, which is then kept in a private file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hybridrag.errors import SpecInvalid
from hybridrag.model.secret import Secret

from .common import Settings

TRIAL = "HYBRIDRAG_SECRET_ON_TRIAL"
"""Variable that stands for a value until it is kept; it lives in memory only."""


@dataclass(frozen=True, slots=True)
class Given:
    """`reference` as the user gave it (`file` relative to the current folder), or `value`."""

    reference: dict[str, str] | None
    value: Secret | None

    def on_trial(self, base_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
        """(what a spec may say before anything is written, the variables it needs)."""
        if self.value is not None:
            return {"env": TRIAL}, {TRIAL: self.value.reveal()}
        return self.settled(base_dir), {}

    def settled(self, base_dir: Path) -> dict[str, str]:
        """The reference with a file found from the spec's folder."""
        reference = self.reference or {}
        if "file" in reference:
            return {"file": relative_to(base_dir, Path(reference["file"]).expanduser())}
        return reference


def given(settings: Settings, text: str, option: str, *, url: bool) -> Given:
    """`-` is a line of stdin, `env:NAME` and `file:PATH` are references, anything else is the secret itself.

    Raises SpecInvalid, which never repeats the text.
    """
    kind, _, name = text.partition(":")
    if kind in ("env", "file") and name and not name.startswith("//"):
        return Given({kind: name}, None)
    value = sys.stdin.readline().rstrip("\r\n") if text == "-" else text
    if not value:
        raise SpecInvalid(f"{option} is empty", hint=f"{option} - reads one line from stdin")
    if not value.isprintable():
        raise SpecInvalid(
            f"{option} holds a line break or a control character", hint="it must be one line of text"
        )
    if url and not value.startswith(("postgresql://", "postgres://")):
        raise SpecInvalid(
            f"{option} is no connection string",
            hint="postgresql://user@host:5432/database, or a reference: env:NAME, file:PATH, or - for stdin",
        )
    if text != "-" and (not url or _has_password(value)):
        settings.out(to_stderr=True).print(
            f"[warn]warning[/]: a password after {option} can be seen by every user of this machine (ps) and stays in "
            "the shell's history; safer: - for stdin, env:NAME or file:PATH"
        )
    return Given(None, Secret(value))


def _has_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.password) or "password=" in parts.query
    except ValueError:
        return True


class KeptSecret:
    """The private file of a value that was given: made by `write`, gone after `undo`."""

    def __init__(self, secret: Given, folder: Path, name: str, base_dir: Path) -> None:
        self._secret = secret
        self._base_dir = base_dir
        self._path = folder / name
        number = 2
        while self._path.exists():  # an older one may still be referred to
            self._path = folder / f"{name}-{number}"
            number += 1
        self._written = False

    @property
    def path(self) -> Path | None:
        """Where the value is kept; None when a reference was given."""
        return self._path if self._secret.value is not None else None

    @property
    def reference(self) -> dict[str, str]:
        """What the spec says."""
        if self._secret.value is None:
            return self._secret.settled(self._base_dir)
        return {"file": relative_to(self._base_dir, self._path)}

    def write(self) -> None:
        if self._secret.value is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._written = True
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self._secret.value.reveal() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def undo(self) -> None:
        if self._written:
            self._path.unlink(missing_ok=True)


def relative_to(base_dir: Path, path: Path) -> str:
    """A path as the spec would say it: relative when it lies below the spec's folder."""
    full = Path(os.path.abspath(path))  # noqa: PTH100 - a link stays a link
    try:
        return f"./{full.relative_to(base_dir)}"
    except ValueError:
        return str(full)
