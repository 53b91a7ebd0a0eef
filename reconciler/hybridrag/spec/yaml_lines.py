"""One YAML file -> a tree of plain values with line numbers.

Called by `spec.loader` for each file. Composes with PyYAML but builds no Python object from a tag, so a
spec cannot run code. Duplicate keys are problems; anchors, aliases and `<<` work. What PyYAML says about
a mistake is never repeated: it quotes the text, and the text may be a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from hybridrag.model.whole_file import read_at_most

from .nodes import Node, Position
from .problems import Problem, Unreadable, quote
from .scalars import plain_scalar
from .yaml_errors import in_our_words, refused

_LARGEST = 1024 * 1024
_MOST_NODES = 100_000
_DEEPEST = 50

_PLAIN = "hybridrag:plain"  # an unquoted scalar without a tag
_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_MAP = "tag:yaml.org,2002:map"
_SEQ = "tag:yaml.org,2002:seq"
_RETYPED = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}


class _Composer(yaml.SafeLoader):
    """Leaves every unquoted scalar as text (`scalars` gives it a type) and watches the depth."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute
        "<": [(_MERGE, re.compile(r"<<\Z"))],
        None: [(_PLAIN, re.compile(""))],
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) and event.anchor not in self.anchors:
            what = "an alias (*) names no anchor (&) above it; text that starts with * needs quotes"
            raise refused(what, event)
        self.depth += 1
        if self.depth > _DEEPEST:
            raise refused(f"nested more than {_DEEPEST} levels deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """Turns composed YAML nodes into our nodes; collects what can be said without giving up."""

    def __init__(self, file: str, order: int) -> None:
        self.file = file
        self.order = order
        self.problems: list[Problem] = []
        self._count = 0
        self._open: list[yaml.Node] = []

    def position(self, mark: yaml.Mark) -> Position:
        return Position(order=self.order, line=mark.line + 1, column=mark.column + 1, file=self.file)

    def problem(self, text: str, at: yaml.Mark, hint: str | None = None) -> None:
        self.problems.append(Problem(text=text, at=self.position(at), hint=hint))

    def read(self, node: yaml.Node, key: yaml.Node | None = None) -> Node:
        self._enter(node)
        key_at = self.position(key.start_mark) if key is not None else None
        at = self.position(node.start_mark)
        value: dict[str, Node] | list[Node] | str | int | float | bool | None = None
        if isinstance(node, MappingNode) and node.tag == _MAP:
            value = {name: self.read(child, at_key) for name, (at_key, child) in self._pairs(node).items()}
        elif isinstance(node, SequenceNode) and node.tag == _SEQ:
            value = [self.read(child) for child in node.value]
        elif isinstance(node, ScalarNode) and node.tag in (_TEXT, _MERGE):
            value = str(node.value)
        elif isinstance(node, ScalarNode) and (node.tag == _PLAIN or node.tag in _RETYPED):
            value = plain_scalar(node.value)
        else:
            self.problem(
                "YAML tags (!) are not read here", node.start_mark, "put text that starts with ! in quotes"
            )
        self._open.pop()
        # A map or list is found at its key: its own start is the first line inside it. So is an empty
        # value, which stands nowhere.
        if key_at is not None and not (isinstance(node, ScalarNode) and (node.value or node.tag == _TEXT)):
            at = key_at
        return Node(
            value=value, at=at, key_at=key_at, quoted=isinstance(node, ScalarNode) and node.tag == _TEXT
        )

    def _enter(self, node: yaml.Node) -> None:
        self._count += 1
        if self._count > _MOST_NODES:
            raise refused(f"more than {_MOST_NODES:,} values, aliases counted each time they are used", node)
        if any(node is each for each in self._open):
            raise refused("an alias (*) stands inside its own anchor (&)", node)
        if len(self._open) >= _DEEPEST:
            raise refused(f"nested more than {_DEEPEST} levels deep, through aliases", node)
        self._open.append(node)

    def _pairs(self, node: MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The keys of a map with where they stand; its own keys win over those merged with `<<`."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag not in {_PLAIN, _TEXT, _MERGE} or not key.value:
                self.problem("a key must be text", key.start_mark)
            elif key.tag == _MERGE:
                for name, pair in self._merged(value).items():
                    merged.setdefault(name, pair)
            elif key.value in own:
                first = self.position(own[key.value][0].start_mark)
                self.problem(f"duplicate key {quote(key.value)}", key.start_mark, f"it stands at {first} too")
            else:
                own[key.value] = (key, value)
        return {**merged, **own}

    def _merged(self, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """What `<<: *anchor` or `<<: [*one, *two]` brings in; the first one named wins."""
        self._enter(node)
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, MappingNode):
            found = self._pairs(node)
        elif isinstance(node, SequenceNode):
            for each in node.value:
                for name, pair in (self._merged(each) if isinstance(each, MappingNode) else {}).items():
                    found.setdefault(name, pair)
        if not isinstance(node, MappingNode) and not (
            isinstance(node, SequenceNode) and all(isinstance(each, MappingNode) for each in node.value)
        ):
            self.problem('"<<" takes an alias of a map, or a list of them', node.start_mark)
        self._count += len(found)
        self._open.pop()
        return found


def _text_of(path: Path, file: str, order: int, raw: bytes | None) -> str:
    top = Position(order=order, line=1, column=1, file=file)
    try:
        if raw is None:
            raw = read_at_most(path, _LARGEST + 1)
    except OSError as error:
        why = "is a folder, not a file" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise Unreadable(Problem(text=f"the spec {why}", at=top)) from None
    if len(raw) > _LARGEST:
        raise Unreadable(Problem(text="the spec is larger than 1 MiB", at=top))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].rpartition(b"\n")
        at = Position(
            order=order,
            line=before[0].count(b"\n") + (2 if before[1] else 1),
            column=len(before[2].decode("utf-8", "replace")) + 1,
            file=file,
        )
    raise Unreadable(Problem(text="the spec is not UTF-8 text", at=at, hint="save the file as UTF-8"))


def read_file(
    path: Path, *, file: str, order: int, raw: bytes | None = None
) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML file (None when nothing stands in it) and its problems.

    `raw` is taken instead of what the file holds. `file` is the name shown in positions, `order` the file's place among all spec files. Raises
    `Unreadable` when no tree can be made.
    """
    text = _text_of(path, file, order, raw)
    reader = _Reader(file, order)
    try:
        loader = _Composer(text)
        composed = loader.get_single_node()
        root = None if composed is None else reader.read(composed)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # PyYAML lets ValueError and OverflowError out of "\U" escapes that name no character.
        what = in_our_words(error, text)
    else:
        return root, reader.problems
    at = Position(order=order, line=what.line, column=what.column, file=file)
    raise Unreadable(Problem(text=what.text, at=at, hint=what.hint))
