"""From staged files to the files of the database: marks, and the renaming that makes LightRAG see them.

Every step can be cut off and done again: a file that is still staged was not published, one that is not, was. Files
that stood there before are moved aside, never removed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from hybridrag.backends.kit.marks import check_advance, check_removable, withdrawn
from hybridrag.backends.kit.refusals import busy, taken_over
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.model import fence
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.fence import CURRENT
from hybridrag.model.marks import FINISHED, MarkState

from . import files
from .staging import (
    FOLDER,
    Manifest,
    current,
    detach,
    load,
    lost,
    manifests,
    others_in,
    save,
    staging_folder,
    sync_folder,
    tidy,
    whole,
)

LOCK_PATIENCE_S = 20.0


def file_names(slots: Collection[Slot]) -> list[str]:
    """Names of the files that hold some slots, in copy order."""
    names = dict.fromkeys(files.file_of(name) for name in streams_of(slots))
    return [name for name in names if name != files.OTHER_FILES]


def written_names(manifest: Manifest) -> list[str]:
    """Names of the files that a migration writes."""
    return [*file_names(manifest.slots), *others_in(manifest)]


@contextlib.contextmanager
def locked(folder: Path, slots: Collection[Slot]) -> Iterator[None]:
    """Hold the lock of each slot of a database; the system releases it when this process dies."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_PATIENCE_S
    broken: list[Path] = []
    with contextlib.ExitStack() as stack:
        for name in sorted(slot.value for slot in slots):
            while not take_lock(folder / FOLDER / f"lock-{name}", stack, broken):
                if time.monotonic() > deadline:
                    raise busy(shown(folder))
                time.sleep(0.1)
        fence.check()
        if broken:
            detach(folder)
        yield


def take_lock(path: Path, stack: contextlib.ExitStack, broken: list[Path]) -> bool:
    """Take one lock and say in it whose it is. That of a run which ours has taken over is removed, into `broken`."""
    import fcntl  # not on Windows, where the files can still be read

    ours = CURRENT.get()
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        held_by = file.read().decode("ascii", "replace")
        file.close()
        if ours is None or not ours.outranks(held_by):
            return False
        ours.check()
        path.unlink(missing_ok=True)  # whoever holds it holds a file without a name
        broken.append(path)
        return False
    try:
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            file.close()  # it was replaced while we waited for it
            return False
        file.truncate(0)
        file.write((ours.label if ours else "").encode())
        file.flush()
    except BaseException:
        file.close()
        raise
    stack.enter_context(file)
    return True


def mark(folder: Path, migration_id: str, state: MarkState, fingerprint: str | None = None) -> None:
    """See `Store.mark`. `switched` publishes the files."""
    place, manifest = _marked(folder, migration_id)
    with locked(folder, manifest.slots):
        _, manifest = _marked(folder, migration_id)  # as it is now that nobody else writes
        if manifest.state is MarkState.PUBLISHING and state in FINISHED:
            return  # some files are in their places already, so only the switch goes on, or is taken back
        check_advance(manifest.mark, migration_id, state, shown(folder))
        if state is MarkState.SWITCHED and manifest.state is state:
            _clean(folder, place, manifest)  # a kill may have come before it
        elif state is MarkState.SWITCHED:
            _publish(folder, place, manifest)
        else:
            of_source = fingerprint or manifest.source_fingerprint
            save(place, manifest.model_copy(update={"state": state, "source_fingerprint": of_source}))


def _marked(folder: Path, migration_id: str) -> tuple[Path, Manifest]:
    """Where a migration is staged, and how far it is. Raises PlanRefused where it is not there."""
    place = staging_folder(folder, migration_id)
    manifest = load(place)
    if manifest is None:
        raise taken_over(shown(folder), "switched")
    return place, manifest


def shown(folder: Path) -> str:
    """The place in words."""
    return f'the folder "{folder}"'


def _publish(folder: Path, place: Path, manifest: Manifest) -> None:
    names = written_names(manifest)
    kept = folder / FOLDER / f"before-{manifest.migration}"
    if gone := lost(folder, manifest, manifest.slots):
        raise BackendUnavailable(
            f'"{gone[0]}" of the finished copy in "{place}" is not there any more; nothing was switched',
            where=str(place),
            hint=f'move the files of the folder away and remove "{place}", then run hybridrag apply: it starts anew'
            if manifest.state is MarkState.PUBLISHING
            else "hybridrag apply copies it anew",
        )
    if manifest.state is not MarkState.PUBLISHING:
        _make_way(kept)
    _refuse_foreign(folder, place, kept, manifest, names)
    manifest = save(place, manifest.model_copy(update={"state": MarkState.PUBLISHING}))
    for name in names:
        staged, own = place / name, folder / name
        if not staged.exists():
            continue
        fence.check()
        if own.exists():
            kept.mkdir(exist_ok=True)
            staged.chmod(stat.S_IMODE(own.stat().st_mode))  # as LightRAG keeps it when it writes a file anew
            own.rename(kept / name)
        staged.rename(own)
    for changed in (kept, folder, place):
        if changed.is_dir():
            sync_folder(changed)
    save(place, manifest.model_copy(update={"state": MarkState.SWITCHED}))
    _clean(folder, place, manifest)


def withdraw(folder: Path, migration_id: str) -> None:
    """See `Store.withdraw`: what was published is staged again, and the files that stood there before are back."""
    place, manifest = _marked(folder, migration_id)
    with locked(folder, manifest.slots):
        _, manifest = _marked(folder, migration_id)
        state = withdrawn(manifest.mark, migration_id, shown(folder))
        if state is manifest.state:
            return
        manifest = save(place, manifest.model_copy(update={"state": MarkState.PUBLISHING}))
        kept = folder / FOLDER / f"before-{migration_id}"
        for name in written_names(manifest):
            staged, own = place / name, folder / name
            fence.check()
            if own.exists() and not staged.exists():
                own.rename(staged)
            if (kept / name).exists():
                (kept / name).rename(own)
        if kept.is_dir() and not any(kept.iterdir()):
            kept.rmdir()
        for changed in (kept.parent, folder, place):
            sync_folder(changed)
        save(place, manifest.model_copy(update={"state": state}))


def _make_way(kept: Path) -> None:
    """The same state of the same source may be published twice; what was kept the first time stays, under another name."""
    if kept.exists():
        number = next(n for n in itertools.count(1) if not kept.with_name(f"{kept.name}-{n}").exists())
        kept.rename(kept.with_name(f"{kept.name}-{number}"))


def _refuse_foreign(folder: Path, place: Path, kept: Path, manifest: Manifest, names: list[str]) -> None:
    """Before anything is moved: files that nobody told us we may replace, or that were written in the meantime."""
    for name in names:
        if not ((place / name).exists() and (folder / name).exists()):
            continue
        if not manifest.replaces or (kept / name).exists():
            raise PlanRefused(
                f'"{folder / name}" was written by somebody else meanwhile; it is left alone',
                hint="stop what writes it and move that file away, then run hybridrag apply again",
            )


def _clean(folder: Path, place: Path, manifest: Manifest) -> None:
    """Remove what was kept aside, and marks of earlier migrations whose files were moved aside: no data any more."""
    tidy(place)
    for older in manifests(folder, manifest.slots):
        if older.number < manifest.number and set(older.slots) <= set(manifest.slots):
            shutil.rmtree(staging_folder(folder, older.migration))


def destroy(folder: Path, slots: Collection[Slot], migration_id: str | None) -> None:
    """See `Store.destroy_kept`: the files of these slots, those moved aside as well, and our marks. Marks go last."""
    if not folder.is_dir():
        return
    ours = (folder / FOLDER).is_dir()
    with locked(folder, slots):
        marks = manifests(folder, slots)
        newest = current(whole(folder, slots))
        check_removable(newest.mark if newest else None, migration_id, shown(folder), "deleted")
        aside = [place for place in (folder / FOLDER).glob("before-*") if place.is_dir()]
        for place in (folder, *aside):
            others = [path.name for path in (files.other_files(place) if Slot.KV in slots else ())]
            for name in (*file_names(slots), *others):
                (place / name).unlink(missing_ok=True)
            sync_folder(place)
        for place in aside:
            if not any(place.iterdir()):
                place.rmdir()
        for mark in marks:
            if set(mark.slots) <= set(slots):
                shutil.rmtree(staging_folder(folder, mark.migration))
        for slot in slots:  # while they are held
            (folder / FOLDER / f"lock-{slot.value}").unlink(missing_ok=True)
    if not ours:
        shutil.rmtree(folder / FOLDER)


def explain(error: OSError, folder: Path) -> BackendUnavailable:
    """A failed read or write of the folder in words."""
    reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
    hint = (
        "free disk space"
        if "space" in reason or "quota" in reason
        else "check the folder and its permissions"
    )
    return BackendUnavailable(
        f'the folder "{folder}" cannot be written: {reason}',
        where=str(error.filename) if error.filename else None,
        hint=f"{hint}, then run hybridrag apply: it goes on from the checkpoint",
    )
