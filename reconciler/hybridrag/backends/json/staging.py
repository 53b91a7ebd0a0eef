"""What a migration has written so far, beside the files of the database: `<path>/.hybridrag/<migration id>/`.

A commit names, for each staged file, the bytes that count and, for each stream, the records in them; what a kill left
behind them is cut off. A commit outlives the process at once, and the machine once it is flushed (every second): after
a restart of the machine (another boot id) the last flushed one counts. LightRAG never looks into this folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

import pydantic

from hybridrag.errors import BackendUnavailable
from hybridrag.model import fence
from hybridrag.model.data import BY_NAME, OTHER_STORES, Slot
from hybridrag.model.marks import WITHDRAWN, Mark, MarkState
from hybridrag.model.strict import Strict

from .files import file_of, namespaces_of

FOLDER = ".hybridrag"
_MANIFEST, _PROGRESS = "manifest.json", "progress.json"
_FLUSH_EVERY_S = 1.0


class Manifest(Strict):
    """How far a migration is. `number` orders the migrations of a folder, `serial` the states of this one."""

    migration: str
    source_fingerprint: str
    slots: tuple[Slot, ...]
    replaces: bool
    number: int
    serial: int = 0
    boot: str | None = None
    state: MarkState = MarkState.COPYING
    records: dict[str, int] = pydantic.Field(default_factory=dict)
    offsets: dict[str, int] = pydantic.Field(default_factory=dict)
    keys: list[tuple[str, str, str]] = pydantic.Field(default_factory=list)

    @property
    def mark(self) -> Mark:
        return Mark(migration=self.migration, source_fingerprint=self.source_fingerprint, state=self.state)


def boot_id() -> str | None:
    """Names this run of the machine; None where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def staging_folder(folder: Path, migration_id: str) -> Path:
    return folder / FOLDER / migration_id


def load(place: Path) -> Manifest | None:
    """The newest commit that counts; None where there is none. Raises BackendUnavailable for a damaged one."""
    path = place / _MANIFEST
    try:
        durable = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except pydantic.ValidationError:
        raise BackendUnavailable(
            f'"{path.name}" of an unfinished migration is damaged',
            where=str(path),
            hint="remove that folder, then run hybridrag apply: it starts anew",
        ) from None
    with contextlib.suppress(OSError, pydantic.ValidationError):
        recent = Manifest.model_validate_json((place / _PROGRESS).read_bytes())
        if recent.serial > durable.serial and recent.boot is not None and recent.boot == boot_id():
            return recent
    return durable


def manifests(folder: Path, slots: Collection[Slot]) -> list[Manifest]:
    """All that concern any of these slots; the oldest first."""
    base = folder / FOLDER
    if not base.is_dir():
        return []
    found = (load(place) for place in base.iterdir() if place.is_dir())
    ours = [manifest for manifest in found if manifest and not set(slots).isdisjoint(manifest.slots)]
    return sorted(ours, key=lambda manifest: manifest.number)


def others_in(manifest: Manifest) -> list[str]:
    """Files of stores that are not LightRAG's own, as a migration wrote them."""
    return sorted(name for name in manifest.offsets if namespaces_of(name) == [OTHER_STORES])


def lost(folder: Path, manifest: Manifest, slots: Collection[Slot]) -> list[str]:
    """Files of these slots of a finished copy that lie neither staged nor published any more: somebody deleted them."""
    if manifest.state is MarkState.COPYING:
        return []
    places = [] if manifest.state is MarkState.SWITCHED else [staging_folder(folder, manifest.migration)]
    places += [folder] if manifest.state in WITHDRAWN else []
    written = [name for name, count in manifest.records.items() if count and BY_NAME[name].slot in slots]
    names = {file_of(name) for name in written if name != OTHER_STORES}
    names |= set(others_in(manifest)) if OTHER_STORES in written else set()
    return sorted(name for name in names if not any((place / name).exists() for place in places))


def whole(folder: Path, slots: Collection[Slot]) -> list[Manifest]:
    """Those of `manifests` that still say what is there. One that was cut off while it published always counts."""
    found = manifests(folder, slots)
    return [one for one in found if one.state is MarkState.PUBLISHING or not lost(folder, one, slots)]


def current(found: Iterable[Manifest]) -> Manifest | None:
    """The one that tells the state: what is unfinished, else what was finished last."""
    ordered = list(found)
    return next((m for m in ordered if m.state is not MarkState.SWITCHED), ordered[-1] if ordered else None)


def sync_folder(place: Path) -> None:
    """Make names that were made, moved or removed in a folder outlive the machine."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save(place: Path, manifest: Manifest) -> Manifest:
    """Make a state durable; returns it with its serial."""
    return _save(place, _MANIFEST, manifest, flush=True)


def tidy(place: Path, keep: Collection[str] = ()) -> None:
    """Remove what a finished migration needs no more."""
    fence.check()
    for path in place.iterdir():
        if path.name != _MANIFEST and path.name not in keep:
            path.unlink()


def _save(place: Path, name: str, manifest: Manifest, *, flush: bool) -> Manifest:
    manifest = manifest.model_copy(update={"serial": manifest.serial + 1, "boot": boot_id()})
    beside = place / f"{name}.new"
    with beside.open("wb") as file:
        file.write(manifest.model_dump_json().encode())
        if flush:
            file.flush()
            os.fsync(file.fileno())
    fence.check()
    beside.replace(place / name)
    if flush:
        sync_folder(place)
    return manifest


def detach(folder: Path) -> None:
    """Let all staged files be copies of themselves: what a run that was taken over still holds open counts no more."""
    for place in (folder / FOLDER).iterdir():
        if not (place / _MANIFEST).exists():
            continue
        for path in place.iterdir():
            if path.name not in (_MANIFEST, _PROGRESS):
                beside = place / f"{path.name}.own"
                shutil.copyfile(path, beside)
                beside.replace(path)


class Staging:
    """The staged files of one migration, open for appending."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.place = staging_folder(folder, manifest.migration)
        self.manifest = manifest
        self._files: dict[str, BinaryIO] = {}
        self._flushed = time.monotonic()

    @classmethod
    def begin(cls, folder: Path, manifest: Manifest) -> Staging:
        """A new one, with nothing in it."""
        place = staging_folder(folder, manifest.migration)
        if place.exists():  # a kill before its first manifest
            shutil.rmtree(place)
        place.mkdir()
        sync_folder(place.parent)
        return cls(folder, save(place, manifest))

    def rewind(self) -> None:
        """Cut off what was written after the last commit. Raises BackendUnavailable when committed bytes are gone."""
        for name, offset in self.manifest.offsets.items():
            file = self._open(name)
            if os.fstat(file.fileno()).st_size < offset:
                raise BackendUnavailable(
                    f'"{name}" of an unfinished migration is shorter than it was',
                    where=str(self.place),
                    hint="remove that folder, then run hybridrag apply: it starts anew",
                )
            file.truncate(offset)
        for path in self.place.iterdir():
            if path.name not in (_MANIFEST, _PROGRESS) and path.name not in self.manifest.offsets:
                path.unlink()

    def _open(self, name: str) -> BinaryIO:
        if name not in self._files:
            # Unbuffered: what is written is the system's at once, whatever happens to this process.
            self._files[name] = (self.place / name).open("ab", buffering=0)
        return self._files[name]

    def append(self, name: str, blocks: Iterable[bytes | memoryview]) -> None:
        """Write behind what is there; nothing counts before it is committed."""
        fence.check()
        file = self._open(name)
        for block in blocks:
            rest = memoryview(block)
            while len(rest):
                rest = rest[file.write(rest) :]

    def commit(self, namespace: str, records: int, keys: list[tuple[str, str, str]]) -> None:
        """From now on all that was appended counts, as that many records of the stream."""
        sizes = {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}
        counts = {**self.manifest.records, namespace: records}
        update = {"offsets": {**self.manifest.offsets, **sizes}, "records": counts, "keys": keys}
        changed = self.manifest.model_copy(update=update)
        if boot_id() is None or time.monotonic() - self._flushed > _FLUSH_EVERY_S:
            self.flush()
            self.manifest = save(self.place, changed)
            self._flushed = time.monotonic()
        else:
            self.manifest = _save(self.place, _PROGRESS, changed, flush=False)

    def flush(self) -> None:
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()
