"""Problems found while reading a spec: collected, cleaned of echoes of each other, raised together.

Every file of this room makes `Problem`s; only `raise_if_any` turns them into the one error a user sees.
No text made here may show a value, except one that was written in the spec and can be no secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hybridrag.errors import SpecInvalid

from .nodes import KeyPath, Node, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong, in words for a user; `path` is None when it is about a file, not a value."""

    text: str
    at: Position
    path: KeyPath | None = None
    hint: str | None = None
    covers: bool = False
    """Nothing else is said about this value or what is below it (a secret, an unknown key)."""


class Unreadable(Exception):
    """A file that cannot be understood at all, so nothing more can be said about it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.text)


def printable(text: str, *, longest: int = 200) -> str:
    """The text shortened and safe to print on a terminal."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def quote(text: str) -> str:
    """The text in quotes, at most 60 characters of it, safe to print on a terminal."""
    return f'"{printable(text, longest=60)}"'


def subject(path: KeyPath) -> str:
    """What a message is about: the nearest key in quotes, with the item's number when it is in a list."""
    keys = [part for part in path if isinstance(part, str)]
    if not keys:
        return "the spec"
    item = f" item {path[-1] + 1}" if isinstance(path[-1], int) else ""
    return quote(keys[-1]) + item


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or nothing when no known name is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name[:200].lower(), by_lower, n=1, cutoff=0.5 if len(name) < 4 else 0.6)
    return f" (did you mean {quote(by_lower[near[0]])}?)" if near else ""


def listing(names: Iterable[str]) -> str:
    """Names for a hint, sorted, at most twelve of them."""
    ordered = sorted(names)
    return ", ".join(ordered[:12]) + (", …" if len(ordered) > 12 else "")


def related(one: KeyPath, other: KeyPath) -> bool:
    """True when the paths are equal or one lies below the other."""
    short = min(len(one), len(other))
    return one[:short] == other[:short]


def without_echoes(interpolation: Sequence[Problem], others: Sequence[Problem], root: Node) -> list[Problem]:
    """Both lists without what only follows from another problem.

    That is: what lies below a covered value, and what `others` say about the stand-in of a broken one.
    """
    covered = {problem.path for problem in others if problem.covers and problem.path is not None}

    def hidden(path: KeyPath | None) -> bool:
        return path is not None and any(path[:length] in covered for length in range(len(path) + 1))

    def stand_in(path: KeyPath | None) -> bool:
        node = None if path is None else root.find(path)
        return node is not None and node.broken

    return [
        *(each for each in interpolation if not hidden(each.path)),
        *(each for each in others if each.covers or not (hidden(each.path) or stand_in(each.path))),
    ]


def raise_if_any(problems: Iterable[Problem], *, spec: str) -> None:
    """Raises `SpecInvalid` with every problem, sorted by position; does nothing when there is none."""
    found = {(problem.at, problem.text): problem for problem in problems}
    if not found:
        return
    ordered = [found[key] for key in sorted(found)]
    count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    raise SpecInvalid(
        f"{count} in the spec {quote(spec)}",
        problems=[SpecInvalid(each.text, where=str(each.at), hint=each.hint) for each in ordered],
    )
