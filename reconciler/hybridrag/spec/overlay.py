"""Several spec files become one: maps merge by key, lists replace, `null` deletes an inherited key.

Only `embedding.model: null` stays, for it says that LightRAG is told no model. Called by `spec.loader` with trees from
`yaml_lines`, before interpolation, so a variable that an overlay replaces need not be set.
"""

from __future__ import annotations

from dataclasses import replace

from .nodes import KeyPath, Node


def merge(base: Node, over: Node, path: KeyPath = ()) -> Node:
    """`base` with `over` laid on top. Each value keeps the position of the file it came from."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        if node.value is None and not _says_none((*path, key)):
            merged.pop(key, None)
        elif key in merged:
            merged[key] = merge(merged[key], node, (*path, key))
        else:
            merged[key] = node
    # The overlay touched this map last, so what is wrong with the merged one is told there. The top
    # itself belongs to the base: a missing "databases" is no mistake of an overlay.
    return replace(base if over.key_at is None else over, value=merged)


def _says_none(path: KeyPath) -> bool:
    return len(path) == 4 and path[0] == "databases" and path[2:] == ("embedding", "model")
