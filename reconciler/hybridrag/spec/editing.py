"""One change in the text of a spec: an entry put in or dropped, and not one other byte touched.

Called by `spec.edit_files`. Pure. The place is found with PyYAML's marks and only the lines of the change are
written, because a round trip through a YAML library re-spaces other lines and loses the comments behind a
removed entry. What was made is read again and compared with what was meant; where the two differ (an alias,
a tag, an unusual layout) the change is refused, never guessed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from hybridrag.errors import SpecInvalid

from .nodes import Node
from .problems import Unreadable, quote
from .scalars import plain_scalar
from .yaml_lines import read_file

Path_ = tuple[str, ...]
_BOM = b"\xef\xbb\xbf"
_COMMENT = re.compile(r"( *)#")


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A value at a path of keys; maps above it are made where they are missing."""

    path: Path_
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """No value at a path of keys."""

    path: Path_


Change = Put | Drop


class CannotEdit(SpecInvalid):
    """The file is understood, but this change cannot be made without touching more than it (exit 3)."""

    code = "spec_not_editable"


class _Unusual(Exception):
    """Why a place cannot be edited, in words."""


def edit(raw: bytes, change: Change, *, file: str) -> bytes:
    """The file's bytes with the change made. Raises CannotEdit, with what to write by hand."""
    try:
        before = tree(raw, file).plain()
        text = raw.removeprefix(_BOM).decode("utf-8")
        made = _Text(text).apply(change).encode("utf-8")
        made = _BOM + made if raw.startswith(_BOM) else made
        if tree(made, file).plain() != _meant(before, change):
            raise _Unusual("it would change other values as well")
    except (_Unusual, Unreadable, yaml.YAMLError) as error:
        why = str(error) if isinstance(error, _Unusual) else "its layout is unusual"
        raise CannotEdit(
            f'"{".".join(change.path)}" cannot be {"removed" if isinstance(change, Drop) else "written"} here: {why}',
            where=file,
            hint=f"do it by hand: {_by_hand(change)}",
        ) from None
    return made


def tree(raw: bytes, file: str) -> Node:
    """What a file says, before overlays and variables. Raises Unreadable."""
    root, problems = read_file(Path(file), file=file, order=0, raw=raw)
    if root is None or problems:
        raise _Unusual(problems[0].text if problems else "the file is empty")
    return root


def stands(raw: bytes, file: str, path: Path_) -> bool:
    """Whether the file itself says something at a path."""
    try:
        return tree(raw, file).find(path) is not None
    except (_Unusual, Unreadable):
        return False


def literal(value: Any) -> Any:
    """The value as it must be written to be taken as it is: a dollar sign begins no variable."""
    if isinstance(value, Mapping):
        return {key: literal(each) for key, each in value.items()}
    return value.replace("$", "$$") if isinstance(value, str) else value


def _by_hand(change: Change) -> str:
    if isinstance(change, Drop):
        return f"delete {quote('.'.join(change.path))}"
    nested = change.value
    for key in reversed(change.path):
        nested = {key: nested}
    return _rendered(nested, flow=True)


def _meant(before: object, change: Change) -> object:
    document = copy.deepcopy(before)
    place: Any = document
    for key in change.path[:-1]:
        if isinstance(change, Put) and place.get(key) is None:
            place[key] = {}
        place = place[key]
    if isinstance(change, Put):
        place[change.path[-1]] = change.value
    else:
        del place[change.path[-1]]
    return document


class _Dumper(yaml.SafeDumper):
    """Writes text in quotes where a spec (YAML 1.2) would read something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if plain_scalar(text) == text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _rendered(value: Any, *, flow: bool) -> str:
    dumped: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True if flow else None,
        sort_keys=False,
        allow_unicode=True,
        width=1_000_000,
    )
    return dumped.removesuffix("...\n").rstrip("\n")


class _Text:
    """A spec's text with the marks of its nodes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.lines = text.splitlines(keepends=True)
        composed = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(composed, MappingNode):
            raise _Unusual("it is not a map of keys")
        self.root = composed

    def apply(self, change: Change) -> str:
        map_, above, rest = self._reach(change.path)
        if isinstance(change, Drop):
            if len(rest) != 1 or _own(map_, rest[0]) is None:
                raise _Unusual("it does not stand here itself (is it behind an alias?)")
            return self._drop(map_, above, rest[0])
        if len(rest) == 1 and (pair := _own(map_, rest[0])) is not None:
            return self._replace(pair, change.value)
        value = change.value
        for key in reversed(rest[1:]):
            value = {key: value}
        return self._add(map_, above, rest[0], value)

    def _reach(self, path: Path_) -> tuple[yaml.Node, ScalarNode | None, Path_]:
        """The deepest map on the way, the key it stands at, and the keys that are left."""
        node: yaml.Node = self.root
        above: ScalarNode | None = None
        for at, key in enumerate(path[:-1]):
            pair = _own(node, key)
            if pair is None:
                return node, above, path[at:]
            above, node = pair
            if _aliased(above, node):
                raise _Unusual(f"{quote(key)} is an alias of another place")
            if not isinstance(node, MappingNode) and not _empty(node):
                raise _Unusual(f"{quote(key)} is no map")
        return node, above, path[-1:]

    # Adding

    def _add(self, map_: yaml.Node, above: ScalarNode | None, key: str, value: Any) -> str:
        if isinstance(map_, MappingNode) and map_.value and not map_.flow_style:
            column = int(map_.value[0][0].start_mark.column)
            last = self._span(map_, len(map_.value) - 1)[1]
            return self._insert(self._past_comments(last, column), column, {key: value})
        if isinstance(map_, MappingNode) and map_.value:
            end = map_.value[-1][1].end_mark.index
            if _aliased(*map_.value[-1]):
                raise _Unusual("its last value is an alias")
            return self.text[:end] + ", " + _rendered({key: value}, flow=True)[1:-1] + self.text[end:]
        if above is None:
            raise _Unusual("the file is empty")
        start, end = map_.start_mark.index, map_.end_mark.index
        written = self.text[start:end]
        if written[:1] not in ("{", "", "~", "n", "N"):
            raise _Unusual(f"{quote(above.value)} has an anchor or a tag")
        if self._before(above).strip():  # inside another map's braces
            flow = _rendered({key: value}, flow=True)
            return self.text[:start] + ("" if written else " ") + flow + self.text[end:]
        pad = " " * (end - start)  # a comment behind it stays in its column
        if not self.text[end:].partition("\n")[0].strip():
            pad, start = "", start - (len(self.text[:start]) - len(self.text[:start].rstrip(" ")))
        line = int(map_.end_mark.line if written else above.end_mark.line) + 1
        column = int(above.start_mark.column)
        place = self._past_comments(line, column + 1)
        inserted = _Inserting(self, place, column + 2, {key: value})
        return (
            self.text[:start] + pad + self.text[end : inserted.at] + inserted.lines + self.text[inserted.at :]
        )

    def _insert(self, line: int, column: int, entry: Mapping[str, Any]) -> str:
        new = _Inserting(self, line, column, entry)
        return self.text[: new.at] + new.lines + self.text[new.at :]

    def _past_comments(self, line: int, column: int) -> int:
        """The line behind the comments that follow and are indented at least so far."""
        place = line
        for at in range(line, len(self.lines)):
            found = _COMMENT.match(self.lines[at])
            if found is not None and len(found.group(1)) >= column:
                place = at + 1
            elif self.lines[at].strip():
                break
        return place

    # Replacing

    def _replace(self, pair: tuple[ScalarNode, yaml.Node], value: Any) -> str:
        key, node = pair
        if _aliased(key, node):
            raise _Unusual("its value is an alias of another place")
        if not isinstance(node, ScalarNode) or isinstance(value, Mapping):
            raise _Unusual("something else stands there")
        if "$" in node.value:
            raise _Unusual(f"its value comes from a variable, {node.value}; set that instead")
        if node.style in ("|", ">"):
            raise _Unusual("its value is a block of text")
        start, end = node.start_mark.index, node.end_mark.index
        flow = _rendered([value], flow=True)[1:-1]
        return self.text[:start] + ("" if start < end else " ") + flow + self.text[end:]

    # Dropping

    def _drop(self, map_: yaml.Node, above: ScalarNode | None, key: str) -> str:
        if not isinstance(map_, MappingNode):
            raise _Unusual("it does not stand in a map")
        index = next(at for at, (name, _) in enumerate(map_.value) if name.value == key)
        if map_.flow_style:
            return self._drop_flow(map_, index)
        name = map_.value[index][0]
        if self._before(name).strip():
            raise _Unusual("other text stands before it in its line")
        first, last = self._span(map_, index)
        last = self._past_comments(last, int(name.start_mark.column) + 1)
        start, end = self._offset(first), self._offset(last)
        if len(map_.value) > 1 or above is None:
            return self.text[:start] + self.text[end:]
        colon = self.text.index(":", above.end_mark.index) + 1
        room = 3 if self.text[colon:].startswith("    ") else 0
        return self.text[:colon] + " {}" + self.text[colon + room : start] + self.text[end:]

    def _drop_flow(self, map_: MappingNode, index: int) -> str:
        pairs = map_.value
        name, value = pairs[index]
        start, end = name.start_mark.index, value.end_mark.index
        if index:
            start = pairs[index - 1][1].end_mark.index
        elif len(pairs) > 1:
            end = pairs[1][0].start_mark.index
        if any(_aliased(*pair) for pair in pairs[max(0, index - 1) : index + 1]):
            raise _Unusual("an alias stands at it")
        if "#" in self.text[start : name.start_mark.index] + self.text[value.end_mark.index : end]:
            raise _Unusual("a comment stands at it")
        return self.text[:start] + self.text[end:]

    # Places

    def _span(self, map_: MappingNode, index: int) -> tuple[int, int]:
        """First line of an entry of a block map, and the line behind its last one; no comments behind it."""
        pairs = map_.value
        first = int(pairs[index][0].start_mark.line)
        if index + 1 < len(pairs):
            end = int(pairs[index + 1][0].start_mark.line)
        else:
            end = int(map_.end_mark.line) + (1 if map_.end_mark.column else 0)
        while end > first + 1 and (not self.lines[end - 1].strip() or _COMMENT.match(self.lines[end - 1])):
            end -= 1
        return first, end

    def _before(self, node: yaml.Node) -> str:
        at = node.start_mark.index
        return self.text[at - int(node.start_mark.column) : at]

    def _offset(self, line: int) -> int:
        return sum(len(each) for each in self.lines[:line])


class _Inserting:
    """Whole lines for an entry at a line: where they go, and what they are."""

    def __init__(self, text: _Text, line: int, column: int, entry: Mapping[str, Any]) -> None:
        self.at = sum(len(each) for each in text.lines[:line])
        rendered = _rendered(entry, flow=False)
        if rendered.startswith("{"):  # PyYAML's choice where no value is a collection; lines are wanted
            rendered = rendered[1:-1]
        rows = rendered.split("\n")
        made = "".join(f"{' ' * column}{row}{text.newline}" for row in rows)
        unended = self.at > 0 and not text.text[: self.at].endswith("\n")
        self.lines = (text.newline if unended else "") + made


def _own(node: yaml.Node, key: str) -> tuple[ScalarNode, yaml.Node] | None:
    """The pair of a key that stands in a map itself, not by a merge."""
    if not isinstance(node, MappingNode):
        return None
    for name, value in node.value:
        if isinstance(name, ScalarNode) and name.value == key and name.tag != "tag:yaml.org,2002:merge":
            return name, value
    return None


def _aliased(key: yaml.Node, value: yaml.Node) -> bool:
    return bool(value.start_mark.index < key.end_mark.index)


def _empty(node: yaml.Node) -> bool:
    return isinstance(node, ScalarNode) and node.style is None and node.value in ("", "~", "null")
