"""How a file of a source is named in LightRAG's doc status, so that any backend tells what is in already.

LightRAG keeps only the last part of a path and refuses two documents of one name, so the whole relative path is
written as one part: "notes/a.md" is "notes%2Fa.md". `track_id`, which LightRAG carries through every state of a
document, holds the digest of the content. Nothing else is remembered anywhere.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

_MARK = "hybridrag-"
_REPLACED = "%replaced"
"""Behind the path of a document whose successor is being ingested. No name ends so: "%" is always escaped."""
DELETED = "deleted"
"""In place of the digest, once its deletion has begun: what is left of it is no document."""
_ESCAPED = re.compile(r"[%/\\\[\]<>\x00-\x1f\x7f\ud800-\udfff]|^\s|\s$")
"""Beside the separators: what LightRAG reads as a hint to its parsers or strips, and what no database stores."""


def file_path(name: str) -> str:
    """The document's `file_path` for a file's name."""
    return _ESCAPED.sub(_escape, name)


def replaced(name: str) -> str:
    """The `file_path` of the document that is being replaced."""
    return file_path(name) + _REPLACED


def named(path: str) -> tuple[str, bool]:
    """The file's name, and whether the document is being replaced."""
    plain = path.removesuffix(_REPLACED)
    return unquote(plain, errors="surrogateescape"), plain != path


def track_id(digest: str) -> str:
    return _MARK + digest


def digest_of(track: str | None) -> str | None:
    """The digest of the content of a document of ours; None for another writer's."""
    return track.removeprefix(_MARK) if track and track.startswith(_MARK) else None


def document_id(name: str, digest: str) -> str:
    """Another one for each content, for the successor is ingested while its predecessor stands."""
    mixed = f"{name}\0{digest}".encode("utf-8", "surrogateescape")
    return "doc-" + hashlib.sha256(mixed).hexdigest()[:32]


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found.group().encode("utf-8", "surrogateescape"))
