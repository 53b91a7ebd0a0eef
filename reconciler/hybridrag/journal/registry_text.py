"""The registry's text as plain values: nothing twice, nothing without end, and the place of whatever cannot be read.

Called by `registry`. PyYAML by itself lets the last of two equal keys win, builds what aliases multiply, and ends
with errors of Python's for a date such as 2026-99-99.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

_DEEPEST = 50
_UNFIT = re.compile("[\0\ud800-\udfff]")
_MOST_VALUES = 1_000_000
"""Aliases counted each time they are used."""


class Misread(Exception):
    """Why a text cannot be read; `line` and `column` count from 1."""

    def __init__(self, why: str, line: int, column: int) -> None:
        self.why, self.line, self.column = why, line, column
        super().__init__(why)


def parse(text: str) -> Any:
    """What the text says; None where it says nothing. Raises Misread."""
    try:
        loader = _Loader(text)
        node: Node | None = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, [])
        return loader.construct_document(node)
    except ReaderError as error:
        before = text[: error.position].rpartition("\n")
        line = before[0].count("\n") + (2 if before[1] else 1)
        raise Misread("a character that YAML does not allow", line, len(before[2]) + 1) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        raise Misread(error.problem or "syntax error", line, column) from None
    except (ValueError, OverflowError):  # PyYAML lets them out of escapes that name no character
        raise Misread("syntax error", 1, 1) from None


class _Loader(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise _wrong(f"nested more than {_DEEPEST} levels deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError):
            raise _wrong("a value that is not what its form or its tag says", node) from None
        if isinstance(value, str) and _UNFIT.search(value):
            raise _wrong("a text with a character that nothing can use", node)
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong("a number that is none", node)
        return value

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if isinstance(key, ScalarNode) and key.value in seen:
                raise _wrong(f'the key "{key.value[:60]}" stands twice', key)
            seen |= {key.value} if isinstance(key, ScalarNode) else set()
        return super().construct_mapping(node, deep)


def _wrong(what: str, at: Any) -> ConstructorError:
    return ConstructorError(problem=what, problem_mark=at.start_mark)


def _measure(node: Node, known: dict[int, int], above: list[Node]) -> int:
    """How many values a node stands for. Raises ConstructorError where it stands in itself, and for too many."""
    if any(node is each for each in above) or len(above) > _DEEPEST:
        raise _wrong("an alias that stands inside its own anchor, or too deep", node)
    if id(node) not in known:
        inner: list[Node] = list(node.value) if isinstance(node, SequenceNode) else []
        if isinstance(node, MappingNode):
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_measure(each, known, [*above, node]) for each in inner)
        if known[id(node)] > _MOST_VALUES:
            raise _wrong(f"more than {_MOST_VALUES:,} values", node)
    return known[id(node)]
