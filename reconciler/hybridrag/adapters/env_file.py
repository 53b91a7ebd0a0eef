"""A writer's `.env`: brought in step with the stores that serve, and put back. Called by the halters, never by a reader.

LightRAG's server reads it from its current folder (`lightrag/api/config.py`); absent names have LightRAG's defaults.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from hybridrag.errors import PlanRefused
from hybridrag.model.selection import Selection
from hybridrag.model.storages import STORAGES, storages_of
from hybridrag.spec.env_text import own_text, unreadable_line, values_of, with_values

WORKING_DIR = "./rag_storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """How the writer sees the world. `folder` is where it starts; `given` are variables that win over the file.

    `seen` says where it finds a folder of ours; None where it cannot see it.
    """

    folder: PurePath
    seen: Callable[[str], str | None] = lambda path: path
    given: Mapping[str, str] = field(default_factory=dict)


class EnvFile:
    """One file. `key` is where the spec names it; `surroundings` are asked each time, as they may change."""

    def __init__(
        self, path: Path, *, key: str, surroundings: Callable[[], Surroundings] | None = None
    ) -> None:
        self._path = path
        self._key = key
        self._surroundings = surroundings or (lambda: Surroundings(folder=path.parent))
        self._former: list[bytes | None] = []

    def check(self) -> None:
        """Raises PlanRefused where the file could not be rewritten; writes nothing."""
        self._read()
        folder = self._path.resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            why = "may not be written" if folder.is_dir() else "does not exist"
            raise PlanRefused(
                f'{self._key}: "{self._path}" could not be rewritten: its folder {why}',
                hint=f"correct {self._key} in the spec, or let this user write there",
            )

    def bring(self, selection: Selection) -> bool:
        """Make the file name the stores of the selection; whether it had to be written. Raises PlanRefused."""
        raw = self._read()
        text = "" if raw is None else raw.decode("utf-8")
        own = own_text(text)
        try:
            wanted = with_values(own, changes(own, selection, self._surroundings()))
        except ValueError as error:
            raise PlanRefused(
                f"{self._key}: {error}", hint="correct the connection's settings in the spec"
            ) from None
        if wanted == text:
            return False
        self._former.append(raw)
        if raw is not None:
            self._write(self._beside(), raw, mode=0o600)
        self._write(self._path.resolve(), wanted.encode("utf-8"))
        return True

    def put_back(self) -> None:
        """As it was before this process first changed it."""
        if not self._former:
            return
        first = self._former[0]
        if first is None:
            self._path.resolve().unlink(missing_ok=True)
        else:
            self._write(self._path.resolve(), first)
        self._former.clear()

    def exposed(self) -> str | None:
        """Words where what stands in it can be read by every user of this machine."""
        with contextlib.suppress(OSError):
            if stat.S_IMODE(self._path.stat().st_mode) & 0o004:
                return f'"{self._path}" holds secrets and can be read by every user: chmod 600 {self._path}'
        return None

    def _beside(self) -> Path:
        real = self._path.resolve()
        return real.with_name(f"{real.name}.before-hybridrag")

    def _read(self) -> bytes | None:
        try:
            raw = self._path.read_bytes()
            text = raw.decode("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise PlanRefused(
                f'{self._key}: "{self._path}" cannot be read: {why}', hint=f"correct {self._key} in the spec"
            ) from None
        if (line := unreadable_line(text)) is not None:
            raise PlanRefused(
                f'{self._key}: a line of "{self._path}" is not understood, so it is not rewritten',
                where=f"{self._path}:{line}",
                hint="write NAME=value, or make it a comment",
            )
        return raw

    def _write(self, path: Path, data: bytes, mode: int | None = None) -> None:
        """In one piece, with the mode and owner of what it replaces; else readable by nobody else."""
        try:
            _replace(path, data, mode)
        except OSError as error:
            raise PlanRefused(
                f'{self._key}: "{path}" cannot be written: {error.strerror}',
                hint="let this user write there, then: hybridrag apply",
            ) from error


def _replace(path: Path, data: bytes, mode: int | None) -> None:
    try:
        old = path.stat()
    except FileNotFoundError:
        old = None
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if old is not None and mode is None:
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def changes(own: str, selection: Selection, around: Surroundings) -> dict[str, str]:
    """What must stand in the file so that the writer uses these stores; empty where it says so already.

    Raises PlanRefused where variables that the writer is started with say otherwise.
    """
    found = {**values_of(own), **around.given}
    secrets = {name: get() for name, get in selection.secrets.items()}
    wanted = {
        **{name: value for name, value in storages_of(selection).items() if found.get(name, STORAGES[name]) != value},
        **{name: value for name, value in {**selection.variables, **secrets}.items() if found.get(name) != value},
    }  # fmt: skip
    if selection.working_dir is not None:
        wanted |= _folder(found, selection.working_dir, around)
    for name in wanted:
        if name in around.given:
            raise PlanRefused(
                f'the writer is started with the variable "{name}" set to something else, which wins over its .env',
                hint=f"take {name} out of what it is started with, then: hybridrag apply",
            )
    return wanted


def _folder(found: Mapping[str, str], path: str, around: Surroundings) -> dict[str, str]:
    """The variables that lead LightRAG to the files in `path`: it appends the workspace's name to the folder."""
    seen = around.seen(path)
    if seen is None:
        raise PlanRefused(
            f'the writer cannot see the folder "{path}"', hint="mount it there, then: hybridrag apply"
        )
    workspace = re.sub(r"[^a-zA-Z0-9_]", "_", found.get("WORKSPACE", ""))
    now = around.folder / (found.get("WORKING_DIR") or WORKING_DIR) / workspace
    if _same(now, seen, here=around.seen(path) == path):
        return {}
    place = PurePath(seen)
    if workspace and place.name == workspace:
        return {"WORKING_DIR": str(place.parent)}
    return {"WORKING_DIR": seen, **({"WORKSPACE": ""} if workspace else {})}


def _same(now: PurePath, path: str, *, here: bool) -> bool:
    if here:
        return os.path.realpath(now) == os.path.realpath(path)
    return os.path.normpath(now) == os.path.normpath(path)


def complaints(path: Path, key: str) -> list[str]:
    """What a look at the file alone finds, in words."""
    if not path.is_file():
        return [f'{key}: "{path}" does not exist; it would be created']
    exposed = EnvFile(path, key=key).exposed()
    return [] if exposed is None else [f"{key}: {exposed}"]
