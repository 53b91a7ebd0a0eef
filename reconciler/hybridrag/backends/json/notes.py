"""Notes of ours in a folder of JSON files: `.hybridrag/notes/<name>.json`; see `model.notes`.

LightRAG never looks there. The claim of a run is a lock file beside them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from hybridrag.errors import BackendUnavailable
from hybridrag.model.fence import CURRENT
from hybridrag.model.notes import Note, Notes, in_use, overtaken
from hybridrag.model.whole_file import read_at_most

from .publishing import take_lock
from .staging import FOLDER, sync_folder

_NOTES = "notes"
_LARGEST = 1 << 20
_CLAIM = "lock-run"
CLAIM_PATIENCE_S = 1.0


def read_notes(folder: Path) -> Notes:
    """Every note of a folder. Raises BackendUnavailable for one that cannot be understood."""
    found: dict[str, Note] = {}
    try:
        paths = sorted((folder / FOLDER / _NOTES).glob("*.json"))
        for path in paths:
            found[urllib.parse.unquote(path.stem)] = _parse(path, read_at_most(path, _LARGEST))
    except OSError as error:
        raise BackendUnavailable(
            f'the notes of hybridrag in the folder "{folder}" cannot be read: {error.strerror}',
            where=str(error.filename or folder),
            hint="give this user the right to read that folder, then run hybridrag plan",
        ) from None
    return found


def _parse(path: Path, raw: bytes) -> Note:
    try:
        document = raw.decode()
        return Note(int(json.loads(document)["revision"]), document)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BackendUnavailable(
            f'"{path.name}" is a note of hybridrag about what serves this folder, and it is damaged',
            where=str(path),
            hint="restore it from a backup; or remove it, then say what serves: hybridrag adopt DB --serving BACKEND",
        ) from None


def put_note(folder: Path, name: str, note: Note) -> None:
    """Write one note, whole; the folder must exist. Raises LeaseHeld, and OSError where it cannot be written."""
    folder.stat()
    place = folder / FOLDER / _NOTES
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        deadline = time.monotonic() + CLAIM_PATIENCE_S
        lock = folder / FOLDER / "lock-notes"
        while not take_lock(lock, stack, []):
            if time.monotonic() > deadline:
                raise in_use(f'the folder "{folder}"', "")
            time.sleep(0.02)
        stack.callback(lock.unlink, missing_ok=True)  # while it is still held
        if (fence := CURRENT.get()) is not None:
            fence.check()
        if not note.replaces(read_notes(folder).get(name)):
            raise overtaken(f'the folder "{folder}"')
        path = place / f"{urllib.parse.quote(name, safe='')}.json"
        draft = path.with_suffix(f".{os.getpid()}.new")
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(note.document)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(place)


def drop_note(folder: Path, name: str) -> None:
    """Forget one note; nothing where there is none."""
    (folder / FOLDER / _NOTES / f"{urllib.parse.quote(name, safe='')}.json").unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Hold the claim of one run on a database in this folder. Raises LeaseHeld.

    A folder that does not exist, or cannot be written to, is not claimed: nothing is going to be written there.
    """
    with contextlib.ExitStack() as stack:
        if folder.is_dir() and os.access(folder, os.W_OK):
            (folder / FOLDER).mkdir(exist_ok=True)
            path = folder / FOLDER / f"{_CLAIM}-{urllib.parse.quote(name, safe='')}"
            deadline = time.monotonic() + CLAIM_PATIENCE_S
            while not take_lock(path, stack, []):
                if time.monotonic() > deadline:
                    raise in_use(f'the folder "{folder}"', "")
                time.sleep(0.05)
            stack.callback(path.unlink, missing_ok=True)  # while it is still held
            if (fence := CURRENT.get()) is not None:
                fence.check()
        yield
