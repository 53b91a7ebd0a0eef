"""`${VAR}` in values, with Compose's grammar.

`$V`, `${V}`, `${V:-default}`, `${V-default}`, `${V:?message}`, `${V?message}`, `${V:+alt}`, `${V+alt}`,
`$$` for a dollar sign; what follows an operator may hold variables again. Called by `spec.loader` after
merging. A message names variables and never shows what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .nodes import KeyPath, Node
from .problems import Problem, printable, subject
from .scalars import plain_scalar, unfit

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_DEEPEST = 20


class _Bad(Exception):
    """What is wrong with a template, and what to do."""

    def __init__(self, text: str, hint: str) -> None:
        self.text = text
        self.hint = hint
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    operator: str = ""
    operand: tuple[str | _Variable, ...] = ()
    raw: str = ""
    """The operand as written; `?` shows this, because its variables may be secret."""


def _parse(text: str, start: int, *, depth: int) -> tuple[tuple[str | _Variable, ...], int]:
    """The parts from `start` to the end of the text, or to the `}` that closes this depth."""
    parts: list[str | _Variable] = []
    at = start
    while at < len(text):
        if text[at] == "}" and depth:
            return tuple(parts), at
        if text[at] != "$":
            stop = at + 1
            while stop < len(text) and text[stop] != "$" and not (text[stop] == "}" and depth):
                stop += 1
            parts.append(text[at:stop])
            at = stop
        elif text.startswith("$$", at):
            parts.append("$")
            at += 2
        elif text.startswith("${", at):
            variable, at = _braced(text, at + 2, depth=depth + 1)
            parts.append(variable)
        elif match := _NAME.match(text, at + 1):
            parts.append(_Variable(match.group()))
            at = match.end()
        else:
            raise _Bad('has a "$" that names no variable', 'write "$$" for a dollar sign, or ${NAME}')
    if depth:
        raise _Bad('has a "${" that is never closed', 'close it with "}", or write "$$" for a dollar sign')
    return tuple(parts), at


def _braced(text: str, start: int, *, depth: int) -> tuple[_Variable, int]:
    if depth > _DEEPEST:
        raise _Bad("has too many variables inside each other", f"at most {_DEEPEST} levels are read")
    name = _NAME.match(text, start)
    if name is None:
        raise _Bad('has a "${" without the name of a variable', 'write ${NAME}, or "$$" for a dollar sign')
    operator = _OPERATOR.match(text, name.end())
    begin = operator.end() if operator else name.end()
    operand, end = _parse(text, begin, depth=depth)
    if operator is None and operand:
        raise _Bad(
            'has a "${" that is not understood',
            "after the name stands }, or one of :- - :? ? :+ + and a text",
        )
    raw = text[begin:end]
    return _Variable(name.group(), operator.group() if operator else "", operand, raw), end + 1


def _render(parts: tuple[str | _Variable, ...], environ: Mapping[str, str]) -> str:
    return "".join(part if isinstance(part, str) else _value(part, environ) for part in parts)


def _value(variable: _Variable, environ: Mapping[str, str]) -> str:
    value = environ.get(variable.name)
    # With a colon an empty variable counts as unset.
    usable = bool(value) if variable.operator.startswith(":") else value is not None
    if variable.operator.endswith("+"):
        return _render(variable.operand, environ) if usable else ""
    if usable and value is not None:
        return value
    if variable.operator.endswith("-"):
        return _render(variable.operand, environ)
    state = "is empty" if value == "" else "is not set"
    message = f": {printable(variable.raw)}" if variable.raw else ""
    raise _Bad(
        f'needs the variable "{variable.name}", which {state}{message}',
        f"set {variable.name} in the environment or in .env beside the spec, "
        f"or give a default: ${{{variable.name}:-value}}",
    )


def expand(text: str, environ: Mapping[str, str], *, quoted: bool = False) -> str | int | float | bool | None:
    """The text with its variables filled in. Raises `_Bad`.

    When nothing but variables stood there, without quotes, the result means what plain YAML would mean:
    `${PORT:-5433}` is a number, `"${PORT:-5433}"` is text.
    """
    parts, _ = _parse(text, 0, depth=0)
    result = _render(parts, environ)
    if quoted or not all(isinstance(part, _Variable) for part in parts):
        return result
    return plain_scalar(result)


def interpolate(root: Node, environ: Mapping[str, str]) -> tuple[Node, list[Problem]]:
    """The tree with every value filled in, and what went wrong. Keys are left as they are."""
    problems: list[Problem] = []

    def visit(node: Node, path: KeyPath) -> Node:
        if isinstance(node.value, dict):
            return replace(node, value={key: visit(child, (*path, key)) for key, child in node.value.items()})
        if isinstance(node.value, list):
            return replace(
                node, value=[visit(child, (*path, index)) for index, child in enumerate(node.value)]
            )
        if not isinstance(node.value, str):
            return node
        variable = "$" in node.value
        try:
            value = expand(node.value, environ, quoted=node.quoted) if variable else node.value
            if isinstance(value, str) and (why := unfit(value)) is not None:
                raise _Bad(why, "remove the character")
        except _Bad as bad:
            problems.append(Problem(text=f"{subject(path)} {bad.text}", hint=bad.hint, at=node.at, path=path))
            return replace(node, value=None, variable=variable, broken=True)
        return replace(node, value=value, variable=variable)

    return visit(root, ()), problems
