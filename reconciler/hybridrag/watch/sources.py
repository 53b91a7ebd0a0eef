"""The files of a source: which there are, and what stands in one. Nothing here remembers or writes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybridrag.model.watching import Document, Source

MAX_BYTES = 20_000_000
"""A text beyond this is no document but a dump; a model would read it for days."""
Stamp = tuple[int, int, int, int]
"""Size, modification and change time (ns), inode: another one after any write, and after a chmod."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that cannot be ingested as it is, and why."""

    reason: str


def folder_of(source: Source) -> Path:
    """The folder that is looked through; it need not exist. A project's SpecStory sessions have one of their own."""
    path = Path(source.path)
    if source.kind != "specstory" or (path.name, path.parent.name) == ("history", ".specstory"):
        return path
    return path / "history" if path.name == ".specstory" else path / ".specstory" / "history"


def listing(source: Source) -> dict[str, Stamp] | None:
    """The stamp of every file of a source, by name; None where its folder does not exist.

    Names are paths below the folder, with "/". Hidden files and what editors put beside a file are left out; a folder
    that several links lead to is looked through once. Raises OSError where the folder itself cannot be read.
    """
    top = folder_of(source)
    try:
        entries = list(os.scandir(top))
    except (FileNotFoundError, NotADirectoryError):
        return None
    extensions = (".md",) if source.kind == "specstory" else source.extensions
    found: dict[str, Stamp] = {}
    seen = {_identity(top.stat())}
    waiting = [("", entries)]
    while waiting:
        prefix, entries = waiting.pop()
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _skipped(entry.name):
                continue
            try:
                info = entry.stat()
            except OSError:  # vanished, or a link that leads nowhere
                continue
            if stat.S_ISDIR(info.st_mode):
                if source.recursive and _identity(info) not in seen:
                    seen.add(_identity(info))
                    waiting.append((f"{prefix}{entry.name}/", list(_inside(entry.path))))
            elif stat.S_ISREG(info.st_mode) and Path(entry.name).suffix.lower() in extensions:
                found[prefix + entry.name] = stamp_of(info)
    return found


def _skipped(name: str) -> bool:
    if name.startswith((".", "~", "#")) or name.endswith(("~", "#")):
        return True
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # no database could hold it
        return True
    return False


def _inside(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        yield from os.scandir(folder)
    except OSError:  # vanished, or not ours to read
        return


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def stamp_of(info: os.stat_result) -> Stamp:
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino


def read(source: Source, name: str, stamp: Stamp) -> Document | Unusable | None:
    """What stands in a file; None where it vanished, was written since, or holds nothing but white space."""
    if stamp[0] > MAX_BYTES:
        return Unusable(f"it is larger than {MAX_BYTES / 1e6:.0f} MB")
    path = folder_of(source) / name
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
            if stamp_of(os.fstat(file.fileno())) != stamp:
                return None
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unusable(f"it cannot be read: {error.strerror}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Unusable(f"it is not UTF-8 (byte {error.start:,})")
    if not text.strip():
        return None
    return Document(name=name, text=text, digest=hashlib.sha256(content).hexdigest())
