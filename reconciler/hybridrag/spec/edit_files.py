"""Changes in the files of a spec: which file, checked as a whole before anything is written, then replaced at once.

Used by the commands that edit the user's spec. Nothing is written unless the edited spec loads without a
problem, and unless the files still hold what was edited. Works on bytes; resolves no secret.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hybridrag.errors import PlanRefused, SpecInvalid

from .editing import Change, Drop, edit, stands
from .loader import LoadedSpec, load


class SpecFiles:
    """The files of one spec, as they were read, and as they are to be.

    `missing` may stand for the only file: it is then created with that text.
    """

    def __init__(self, paths: Sequence[Path], *, missing: str | None = None) -> None:
        self.paths = tuple(paths)
        self._read: dict[Path, bytes | None] = {}
        for path in paths:
            try:
                self._read[path] = path.read_bytes()
            except OSError as error:
                if not isinstance(error, FileNotFoundError) or missing is None:
                    raise SpecInvalid(
                        f'the spec "{path.name}" cannot be read: {error.strerror}', where=str(path)
                    ) from None
                self._read[path] = None
        self._made: dict[Path, bytes] = {
            path: missing.encode() for path, raw in self._read.items() if raw is None and missing is not None
        }

    @property
    def changed(self) -> tuple[Path, ...]:
        """The files that `write` would change."""
        return tuple(
            path for path in self.paths if path in self._made and self._made[path] != self._read[path]
        )

    def change(self, *changes: Change) -> None:
        """Makes changes in memory. A value goes to the last file that has one at its path, else to the first.

        Something dropped is dropped from every file. Raises CannotEdit.
        """
        for change in changes:
            having = [path for path in self.paths if self._has(path, change.path)]
            chosen = having if isinstance(change, Drop) else [having[-1] if having else self.paths[0]]
            for path in chosen:
                self._made[path] = edit(self._now(path), change, file=str(path))

    def load(self, *, more: Mapping[str, str] | None = None) -> LoadedSpec:
        """The changed spec as it would be read; `more` variables stand in for those not there yet.

        Raises SpecInvalid with every problem, as `spec.load` does.
        """
        environ = {**os.environ, **more} if more else None
        instead = {path: self._now(path) for path in self.paths}
        return load(self.paths[0], overlays=self.paths[1:], environ=environ, instead=instead)

    def write(self) -> None:
        """Replaces the changed files. Raises PlanRefused when one was changed by somebody else, and writes none."""
        self._replace({path: self._made[path] for path in self.changed}, expected=self._read)

    def undo(self) -> bool:
        """Puts back what was read; False, and nothing done, when somebody changed the files since."""
        changed = self.changed
        try:
            self._compare(changed, {path: self._made[path] for path in changed})
        except PlanRefused:
            return False
        old = {path: raw for path in changed if (raw := self._read[path]) is not None}
        self._replace(old, expected={path: self._made[path] for path in old})
        for path in changed:
            if self._read[path] is None:
                path.unlink(missing_ok=True)
        return True

    def _now(self, path: Path) -> bytes:
        return self._made.get(path) or self._read[path] or b""

    def _has(self, path: Path, keys: Iterable[str]) -> bool:
        return stands(self._now(path), str(path), tuple(keys))

    def _compare(self, paths: Iterable[Path], expected: Mapping[Path, bytes | None]) -> None:
        for path in paths:
            try:
                now: bytes | None = path.read_bytes()
            except FileNotFoundError:
                now = None
            if now != expected[path]:
                raise PlanRefused(
                    f'the spec "{path.name}" was changed by somebody else just now; nothing was written',
                    hint="run the command again",
                )

    def _replace(self, texts: Mapping[Path, bytes], *, expected: Mapping[Path, bytes | None]) -> None:
        temporary: dict[Path, Path] = {}
        try:
            for path, raw in texts.items():
                temporary[path] = _beside(path, raw)
            self._compare(texts, expected)
            for path, new in temporary.items():
                real = Path(os.path.realpath(path))  # a link to a spec stays a link
                new.replace(real)
                _flush(real.parent)
        except OSError as error:
            raise PlanRefused(
                f'the spec "{error.filename}" cannot be written: {error.strerror}; nothing was changed',
                hint="correct its permissions, or make the change by hand",
            ) from None
        finally:
            for new in temporary.values():
                new.unlink(missing_ok=True)


def _beside(path: Path, raw: bytes) -> Path:
    """A file with that text, on disk, with the mode and the owner of the one it will replace."""
    real = Path(os.path.realpath(path))
    real.parent.mkdir(parents=True, exist_ok=True)
    if real.exists() and not os.access(real, os.W_OK):
        raise PermissionError(13, "it is read-only", str(path))
    handle, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if real.exists():
                old = real.stat()
                with suppress(PermissionError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), old.st_mode & 0o7777)
            else:
                os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _flush(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
