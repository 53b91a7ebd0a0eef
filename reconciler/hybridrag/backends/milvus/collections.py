"""Where LightRAG keeps each vector namespace in Milvus: names, fields, limits. One declarative list.

Source: `lightrag/kg/milvus_impl.py` (`__post_init__`, `_create_schema_for_namespace`) 1.5.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hybridrag.errors import PlanRefused
from hybridrag.model.data import Slot, streams_of
from hybridrag.model.selection import Embedding

VECTORS = streams_of({Slot.VECTOR})
KEY_BYTES = 64
_TEXT = 65535
_PATHS = 32768

LIMITS: Mapping[str, Mapping[str, int]] = {
    "entities": {"entity_name": 512, "content": _TEXT, "source_id": _TEXT, "file_path": _PATHS},
    "relationships": {
        "src_id": 512,
        "tgt_id": 512,
        "content": _TEXT,
        "source_id": _TEXT,
        "file_path": _PATHS,
    },
    "chunks": {"full_doc_id": 64, "content": _TEXT, "file_path": _PATHS},
}
"""Text fields of each namespace and what they hold, in bytes of UTF-8. Beside them: id, vector, created_at."""
TIME = "created_at"

LEDGER = "hybridrag_ledger"
_LEGAL = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")
_LEFT_OVER = "_temp"
"""LightRAG's scratch copy while it changes a collection's schema."""


def collection_name(namespace: str, workspace: str, embedding: Embedding) -> str:
    """Collection of a namespace; with LightRAG's model suffix where the model is named."""
    name = f"{workspace}_{namespace}" if workspace else namespace
    return f"{name}_{embedding.suffix}" if embedding.suffix else name


def collection_names(workspace: str, embedding: Embedding) -> dict[str, str]:
    """Collections by namespace. Raises PlanRefused for a workspace whose collections no server accepts."""
    names = {namespace: collection_name(namespace, workspace, embedding) for namespace in VECTORS}
    for name in names.values():
        if not _LEGAL.match(name):
            raise PlanRefused(
                f'Milvus cannot hold workspace "{workspace}": a collection would be called "{name}"',
                hint='give the database a workspace of letters, digits and "_" in the spec, which begins with no digit (255 in all)',
            )
    return names


def foreign(existing: Iterable[str], workspace: str, ours: Iterable[str]) -> list[str]:
    """Collections of the same workspace that are not ours: another model's, or of a LightRAG without suffixes."""
    own = set(ours)
    prefix = re.escape(f"{workspace}_") if workspace else ""
    inner = "|".join(VECTORS)
    pattern = re.compile(rf"^{prefix}(?:{inner})(?:_(?!(?:.*_)?(?:{inner})(?:_|$)).+_\d+d)?(?:_old)?$")
    return sorted(name for name in existing if name not in own and pattern.match(name))


def stream_of(name: str, workspace: str) -> tuple[str, str] | None:
    """(stream of vectors, what follows its plain name) of a workspace's collection; None where it is none of those."""
    for namespace in VECTORS:
        plain = f"{workspace}_{namespace}" if workspace else namespace
        rest = name.removeprefix(plain)
        if name.startswith(plain) and (not rest or rest.startswith("_")):
            return namespace, rest
    return None


def left_over(existing: Iterable[str], ours: Iterable[str]) -> list[str]:
    """Scratch copies of our collections: LightRAG is changing their schema, or was stopped while it did."""
    wanted = {name + _LEFT_OVER for name in ours}
    return sorted(wanted & set(existing))
