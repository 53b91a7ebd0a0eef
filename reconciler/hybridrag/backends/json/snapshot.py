"""The files of a database as they are at one moment: hard links, which a writer that replaces its files leaves alone."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from hybridrag.errors import PlanRefused

from . import files

PLACE = ".hybridrag"


@contextlib.contextmanager
def linked(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """A folder of links to the files; removed at the end. Raises PlanRefused when a file was written in place meanwhile.

    LightRAG 1.5 replaces its files, 1.4 writes them in place: then there is no such moment while it writes.
    """
    place = folder / PLACE / f"snapshot-{os.getpid()}"
    for left in place.parent.glob("snapshot-*"):
        if left == place or not _alive(left.name.partition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        for path in files.present(folder, names):
            os.link(path, place / path.name)
        before = files.fingerprint(place, names)
        yield place
        if files.fingerprint(place, names) != before:
            raise PlanRefused(
                f'files in "{folder}" were written in place while they were copied; nothing was switched',
                hint="stop whatever writes them (LightRAG 1.4 does not replace its files), then run hybridrag apply",
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):
            (folder / PLACE).rmdir()  # only where nothing else of ours is in it


def _alive(pid: str) -> bool:
    """Whether the run that made a snapshot is still there; a killed one leaves its links behind."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
