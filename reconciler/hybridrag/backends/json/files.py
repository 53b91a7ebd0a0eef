"""The files of a JSON database: their names, sizes, fingerprints and record counts.

Written by LightRAG 1.4.9.8 … 1.5.7: `json_kv_impl.py`, `nano_vector_db_impl.py`, `networkx_impl.py`. Counting
reads blocks and looks for what can only be structure; no file is ever loaded whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import ijson

from hybridrag.errors import NotFound, SourceUnreadable
from hybridrag.model.data import NAMESPACES, Slot
from hybridrag.model.facts import digest_of

GRAPH_FILE = "graph_chunk_entity_relation.graphml"
BLOCK = 1 << 20
_MATRIX = re.compile(rb'"matrix"\s*:\s*"')
_MATRIX_BYTES = 64
"""More than that expression ever takes."""
_ID = re.compile(rb'"__id__"\s*:')
_ID_BYTES = 64
_BOM = b"\xef\xbb\xbf"
_INDENTED = re.compile(rb'(\xef\xbb\xbf)?\{\r?\n  "')
"""How LightRAG's own JSON (indent 2) begins."""
RESTORE = "the file is inconsistent; restore it, or let LightRAG rebuild it"
_DIM = re.compile(rb'"embedding_dim"\s*:\s*(\d+)')


def file_of(namespace: str) -> str:
    """Name of the file that holds a namespace (nodes and edges share one)."""
    if namespace in ("nodes", "edges"):
        return GRAPH_FILE
    if namespace in ("entities", "relationships", "chunks"):
        return f"vdb_{namespace}.json"
    return f"kv_store_{namespace}.json"


FILES: tuple[str, ...] = tuple(dict.fromkeys(file_of(namespace.name) for namespace in NAMESPACES))


def present(folder: Path, names: Collection[str] = FILES) -> list[Path]:
    """Those of the database's files that exist, in copy order. Raises NotFound with words for a user."""
    if not folder.is_dir():
        raise NotFound(
            f'the folder "{folder}" does not exist',
            hint="set databases.<name>.path to the folder that directly holds kv_store_*.json",
        )
    found = [folder / name for name in FILES if (folder / name).is_file()]
    if not found:
        inner = sorted(
            child.name for child in folder.iterdir() if child.is_dir() and any(child.glob("kv_store_*.json"))
        )
        nearby = f'; "{inner[0]}" below it does, so set path to that folder' if inner else ""
        raise NotFound(
            f'the folder "{folder}" holds no LightRAG database (no kv_store_*.json, vdb_*.json or *.graphml){nearby}',
            hint="set databases.<name>.path to the folder that directly holds kv_store_*.json",
        )
    return [path for path in found if path.name in names]


def fingerprint(folder: Path, names: Collection[str] = FILES) -> str:
    """Digest over name, size, modification time (ns) and inode of the named files; changes with any write."""
    marks: dict[str, list[int]] = {}
    for path in present(folder, names):
        stat = path.stat()
        marks[path.name] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return digest_of(marks)


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


def damage(path: Path) -> str | None:
    """Why a file cannot be whole, judged by its first and last bytes; None when it looks whole."""
    with path.open("rb") as file:
        begin = file.read(64)
        head = begin.removeprefix(_BOM).lstrip()
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
    # Indented as LightRAG does it, only the last brace stands at the beginning of a line.
    end = b"\n}" if _INDENTED.match(begin) else b"}"
    return None if tail.endswith(end) else "it ends in the middle (truncated?)"


def _blocks(file: BinaryIO, end: int, overlap: int) -> Iterator[bytes]:
    """Blocks up to `end`, each starting with the last `overlap` bytes of the one before."""
    rest = b""
    left = end - file.tell()
    while left > 0 and (block := file.read(min(BLOCK, left))):
        left -= len(block)
        yield rest + block
        rest = block[-overlap:] if overlap else b""


def _count(path: Path, token: bytes, end: int) -> int:
    """Occurrences of a token in the first `end` bytes."""
    with path.open("rb") as file:
        # A token cannot lie wholly inside the overlap, so none is counted twice.
        return sum(block.count(token) for block in _blocks(file, end, len(token) - 1))


def _count_tags(path: Path, name: bytes) -> int:
    """Start tags of one name; `<` cannot stand in XML text."""
    tag = re.compile(b"<" + name + rb"[\s/>]")
    with path.open("rb") as file:
        return sum(len(tag.findall(block)) for block in _blocks(file, path.stat().st_size, len(name) + 1))


def matrix_span(path: Path) -> tuple[int, int]:
    """(first, last+1) byte of the base64 text of `matrix`. Raises SourceUnreadable when the file has none.

    Searched from the end, because the matrix is most of the file and stands last (`nano_vectordb`).
    """
    stop, rest = path.stat().st_size, b""
    start = -1
    with path.open("rb") as file:
        while stop > 0 and start < 0:
            begin = max(0, stop - BLOCK)
            file.seek(begin)
            block = file.read(stop - begin) + rest
            if (found := _after_last_matrix(block)) >= 0:
                start = begin + found
            rest, stop = block[:_MATRIX_BYTES], begin
        if start < 0:
            raise SourceUnreadable(f'"{path.name}" has no matrix (truncated?)', where=str(path), hint=RESTORE)
        file.seek(start)
        position = start
        while block := file.read(BLOCK):
            quote = block.find(b'"')
            if quote >= 0:
                return start, position + quote
            position += len(block)
    raise SourceUnreadable(f'"{path.name}" ends inside its matrix', where=str(path), hint=RESTORE)


def _after_last_matrix(block: bytes) -> int:
    at = len(block)
    while (at := block.rfind(b'"matrix"', 0, at)) >= 0:
        if match := _MATRIX.match(block, at):
            return match.end()
    return -1


def vector_dim(path: Path) -> int | None:
    """`embedding_dim` of a vector file, from its first bytes."""
    with path.open("rb") as file:
        match = _DIM.search(file.read(4096))
    return int(match.group(1)) if match else None


def count_records(path: Path) -> dict[str, int]:
    """Records by namespace in one file, without loading it. An estimate for files no LightRAG wrote."""
    if path.name == GRAPH_FILE:
        return {"nodes": _count_tags(path, b"node"), "edges": _count_tags(path, b"edge")}
    namespace = next(item for item in NAMESPACES if file_of(item.name) == path.name)
    if namespace.slot is Slot.VECTOR:
        start, _ = matrix_span(path)
        return {namespace.name: _count_ids(path, start)}
    return {namespace.name: _count_keys(path)}


def _count_ids(path: Path, end: int) -> int:
    """Rows of a vector file; a quote inside a text is escaped, so this is always a key."""
    found = seen = 0
    with path.open("rb") as file:
        for block in _blocks(file, end, _ID_BYTES):
            found += sum(match.end() > seen for match in _ID.finditer(block))
            seen = min(_ID_BYTES, len(block))
    return found


def _count_keys(path: Path) -> int:
    with path.open("rb") as file:
        indented = _INDENTED.match(file.read(16)) is not None
    if indented:
        # A raw line break cannot stand inside a JSON string, so this token is always a top-level key.
        return _count(path, b'\n  "', path.stat().st_size)
    try:
        with path.open("rb") as file:
            if file.read(3) != _BOM:
                file.seek(0)
            return _top_level_keys(file)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise SourceUnreadable(f'"{path.name}" is not valid JSON: {error}', where=str(path)) from None


def _top_level_keys(file: BinaryIO) -> int:
    found = depth = 0
    for event, _ in ijson.basic_parse(file):
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
        elif event == "map_key" and depth == 1:
            found += 1
    return found
