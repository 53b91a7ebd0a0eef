"""The files of a database as they are at one moment: hard links, which a writer that replaces its files leaves alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from hybridrag.errors import PlanRefused

from . import files

PLACE = ".hybridrag"
_TRIES = 100
_OURS: set[str] = set()
_numbers = itertools.count()


@contextlib.contextmanager
def linked(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """A folder of links to the files; removed at the end. Raises PlanRefused where no links can be made.

    It costs no room until the writer replaces a file; then the old one stays for as long as the link.
    """
    place = folder / PLACE / f"snapshot-{os.getpid()}-{next(_numbers)}"
    for left in place.parent.glob("snapshot-*"):
        if str(left) not in _OURS and not _alive(left.name.split("-")[1]):
            shutil.rmtree(left, ignore_errors=True)
    _OURS.add(str(place))
    try:
        try:
            place.mkdir(parents=True)
            for path in files.present(folder, names):
                _link(path, place / path.name)
        except OSError as error:
            raise PlanRefused(
                f'the files in "{folder}" cannot be held by links while they are written: {error.strerror}',
                hint="run hybridrag as the user who owns them; or stop whatever writes them, take writer: out of the "
                "spec, then run hybridrag apply",
            ) from None
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        _OURS.discard(str(place))
        with contextlib.suppress(OSError):
            (folder / PLACE).rmdir()  # only where nothing else of ours is in it


def _link(path: Path, link: Path) -> None:
    """The system refuses to link a file that is replaced between its look at the name and the link (ENOENT)."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return os.link(path, link)
    return os.link(path, link)


def _alive(pid: str) -> bool:
    """Whether another run that made a snapshot is still there; a killed one leaves its links behind."""
    try:
        if int(pid) == os.getpid():
            return False  # it had our number before us
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
