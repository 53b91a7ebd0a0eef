"""A spec as a tree of plain values that remember where they were written.

`yaml_lines` makes the tree, `overlay` and `interpolate` make new ones from it, `loader` asks it for
positions. Positions are part of the nodes, so whatever value wins a merge brings its own along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Scalar = str | int | float | bool | None
KeyPath = tuple["str | int", ...]
"""The way from the top of a spec to a value: map keys and list indexes."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """A place in a file. Orders by file in the order they were given, then line, then column (both from 1)."""

    order: int
    line: int
    column: int
    file: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value, where it stands (`at`), and where its key stands (`key_at`, None outside a map)."""

    value: dict[str, Node] | list[Node] | Scalar
    at: Position
    key_at: Position | None = None
    quoted: bool = False
    """A scalar in quotes (or a block scalar): text, whatever it looks like."""
    variable: bool = False
    """The value came from a variable: it may be secret, so no message may show it."""
    broken: bool = False
    """The value could not be made; its problem is already known and the value is a stand-in."""

    def plain(self) -> object:
        """The value without positions: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        """The child of that key or index, if there is one."""
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def find(self, path: Iterable[str | int]) -> Node | None:
        """The node at exactly that path."""
        node: Node | None = self
        for key in path:
            node = node.child(key) if node is not None else None
        return node

    def nearest(self, path: Iterable[str | int]) -> Node:
        """The node at that path, or the closest one above it that was written."""
        node = self
        for key in path:
            child = node.child(key)
            if child is None:
                return node
            node = child
        return node

    def walk(self, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
        """This node and all below it, each with its path."""
        yield path, self
        if isinstance(self.value, dict):
            for key, child in self.value.items():
                yield from child.walk((*path, key))
        elif isinstance(self.value, list):
            for index, child in enumerate(self.value):
                yield from child.walk((*path, index))
