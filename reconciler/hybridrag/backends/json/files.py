"""The files of a JSON database: their names, identities, fingerprints, and whether they look whole.

Written by LightRAG 1.4.9.8 … 1.5.7: `json_kv_impl.py`, `nano_vector_db_impl.py`, `networkx_impl.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import Path

import ijson

from hybridrag.errors import NotFound
from hybridrag.model.data import NAMESPACES, OTHER_STORES, Slot, streams_of
from hybridrag.model.facts import digest_of

from . import python_json

GRAPH_FILE = "graph_chunk_entity_relation.graphml"
BLOCK = 1 << 20
BOM = b"\xef\xbb\xbf"
INDENTED = re.compile(rb'(\xef\xbb\xbf)?\{\r?\n  "')
"""How LightRAG's own JSON (indent 2) begins."""
RESTORE = "the file is inconsistent; restore it, or let LightRAG rebuild it"
_DIM = re.compile(rb'"embedding_dim"\s*:\s*(\d+)')


OTHER_FILES = "kv_store_*.json"
"""Stands among names of files for every store that is not LightRAG's own."""
_STORE = re.compile(r"kv_store_([^\x00-\x1f\x7f/\\]+)\.json\Z")
NAME_BYTES = 255
"""What a file system takes for a name."""


def file_of(namespace: str) -> str:
    """Name of the file that holds a namespace (nodes and edges share one); a pattern for that of `OTHER_STORES`."""
    if namespace == OTHER_STORES:
        return OTHER_FILES
    if namespace in ("nodes", "edges"):
        return GRAPH_FILE
    if namespace in ("entities", "relationships", "chunks"):
        return f"vdb_{namespace}.json"
    return f"kv_store_{namespace}.json"


def namespaces_of(file: str) -> list[str]:
    """The namespaces that a file holds, by its name."""
    if file not in FILES and store_of(file) is not None:
        return [OTHER_STORES]
    return [namespace.name for namespace in NAMESPACES if file_of(namespace.name) == file]


def store_of(file: str) -> str | None:
    """The name of a key-value store by that of its file, LightRAG's own ones too; None where no file can be called so."""
    match = _STORE.match(file)
    try:
        return match[1] if match and len(file.encode()) <= NAME_BYTES else None
    except UnicodeEncodeError:
        return None


def other_files(folder: Path) -> list[Path]:
    """Files of stores that are not LightRAG's own, and that can be read as such, by name."""
    found = sorted(path for path in folder.glob(OTHER_FILES) if namespaces_of(path.name) == [OTHER_STORES])
    return [path for path in found if _usable(path)]


def _usable(path: Path) -> bool:
    try:
        return damage(path) is None
    except OSError:
        return False


def unknown_files(folder: Path, slots: Collection[Slot]) -> dict[str, int]:
    """Bytes by name of what looks like a store of some slots and is neither LightRAG's nor one of `other_files`."""
    patterns = {
        Slot.KV: [OTHER_FILES],
        Slot.VECTOR: ["vdb_*.json", "faiss_index_*"],
        Slot.GRAPH: ["*.graphml"],
    }
    known = {*FILES, *(path.name for path in other_files(folder))}
    found: dict[str, int] = {}
    for pattern in (each for slot in slots for each in patterns.get(slot, [])):
        for path in sorted(folder.glob(pattern)):
            if path.name not in known and path.is_file():
                found[path.name] = path.stat().st_size
    return found


FILES: tuple[str, ...] = tuple(
    dict.fromkeys(file_of(each.name) for each in NAMESPACES if each.name != OTHER_STORES)
)
"""LightRAG's own."""
ALL_FILES: tuple[str, ...] = (*FILES, OTHER_FILES)


def present(folder: Path, names: Collection[str] = ALL_FILES) -> list[Path]:
    """Those of the database's files that exist, in copy order, also what is no file there. Raises NotFound, in words."""
    if not folder.is_dir():
        raise NotFound(
            f'the folder "{folder}" does not exist',
            hint="set databases.<name>.path to the folder that directly holds kv_store_*.json",
        )
    found = [folder / name for name in FILES if os.path.lexists(folder / name)]
    if not found:
        inner = sorted(
            child.name for child in folder.iterdir() if child.is_dir() and any(child.glob("kv_store_*.json"))
        )
        nearby = f'; "{inner[0]}" below it does, so set path to that folder' if inner else ""
        raise NotFound(
            f'the folder "{folder}" holds no LightRAG database (no kv_store_*.json, vdb_*.json or *.graphml){nearby}',
            hint="set databases.<name>.path to the folder that directly holds kv_store_*.json",
        )
    others = other_files(folder) if OTHER_FILES in names else []
    return [*(path for path in found if path.name in names), *others]


def sizes(folder: Path, slots: Collection[Slot]) -> dict[str, int]:
    """Bytes of the files of some slots, by name; those that do not exist are left out."""
    found = {}
    names = [name for name in dict.fromkeys(map(file_of, streams_of(slots))) if name != OTHER_FILES]
    for name in (*names, *(path.name for path in (other_files(folder) if Slot.KV in slots else ()))):
        with contextlib.suppress(OSError):
            found[name] = (folder / name).stat().st_size
    return found


def identity(path: Path) -> str:
    """Name, size, modification time (ns) and inode of a file: another one after any write."""
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def fingerprint(folder: Path, names: Collection[str] = ALL_FILES) -> str:
    """Digest over name, size, modification time (ns) and inode of the named files; changes with any write."""
    marks: dict[str, list[int]] = {}
    for path in present(folder, names):
        stat = path.stat() if path.is_file() else path.lstat()
        marks[path.name] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return digest_of(marks)


def nothing_of_lightrag(folder: Path) -> bool:
    """Whether a folder holds nothing but, perhaps, our own notes. Raises OSError."""
    return all(path.name == ".hybridrag" for path in folder.iterdir())


def unfinished_writes(folder: Path) -> list[str]:
    """LightRAG's temporary siblings (`<file>.tmp.<pid>.…`): a writer is, or was, in the middle of a flush."""
    return sorted(path.name for path in folder.glob("*.tmp.*"))


def anchor(folder: Path) -> str | None:
    """Where a LightRAG newer than 1.5.7 notes which storages a database uses; it refuses to start on others."""
    for place in (folder, folder.parent):
        path = place / "_lightrag_config" / "storage_anchor.json"
        if path.is_file():
            return str(path)
    return None


_NOTHING = frozenset({b"null", b"[]", b'""', b"false", b"0"})
"""JSON that is false to Python."""


def blank(path: Path) -> bool:
    """Whether a `kv_store_*.json` holds nothing but white space, or a value like `null`: LightRAG reads it as a missing one.

    Source: `lightrag.utils.load_json(…) or {}` (1.5.7). A full disk, or a killed container, leaves such files.
    """
    if not path.name.startswith("kv_store_"):
        return False
    with path.open("rb") as file:
        block = file.read(BLOCK).removeprefix(BOM)
        if block.strip() in _NOTHING:
            return len(block) < BLOCK
        while not block.strip():
            if not (block := file.read(BLOCK)):
                return True
    return False


def damage(path: Path) -> str | None:
    """Why a file cannot be whole, judged by its first and last bytes; None when it looks whole. Raises OSError."""
    if not path.is_file():
        return "it is no file, or a link that leads to none"
    if blank(path):
        return None
    with path.open("rb") as file:
        begin = file.read(64)
        head = begin.removeprefix(BOM).lstrip()
        file.seek(max(0, path.stat().st_size - 64))
        tail = file.read().rstrip()
    if not head:
        return "it is empty"
    if path.suffix == ".graphml":
        if not head.startswith(b"<"):
            return "it does not start like XML"
        return None if tail.endswith(b"</graphml>") else "it ends in the middle (truncated?)"
    if not head.startswith(b"{"):
        return "it does not start with an object"
    # Indented as LightRAG does it, only the last brace stands at the beginning of a line; another hand may differ.
    indented = INDENTED.match(begin) is not None
    whole = tail.endswith(b"\n}" if indented else b"}") or (tail.endswith(b"}") and _parses(path))
    return None if whole else "it ends in the middle (truncated?)"


def _parses(path: Path) -> bool:
    """Whether all of a file is one JSON value, as Python's parser takes it; one pass."""
    try:
        with path.open("rb") as file:
            if file.read(len(BOM)) != BOM:
                file.seek(0)
            start = file.tell()
            try:
                return all(True for _ in ijson.basic_parse(file))
            except ijson.JSONError:
                file.seek(start)
                return all(True for _ in python_json.pairs(file))
    except (ValueError, RecursionError):
        return False


def vector_dim(path: Path) -> int | None:
    """`embedding_dim` of a vector file, from its first bytes."""
    with path.open("rb") as file:
        match = _DIM.search(file.read(4096))
    return int(match.group(1)) if match else None
