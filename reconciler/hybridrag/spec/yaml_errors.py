"""What PyYAML found wrong, in our words.

PyYAML's own messages quote names and text of the file, which may be a secret (`password: *hunter2` is a
wrong alias to it), and speak of tokens. So its words are only looked at here, never passed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from yaml.reader import ReaderError

_KNOWN = (
    # a part of PyYAML's context and problem -> our words, and what to do
    (
        "'\\t' that cannot start",
        "a tab is not allowed here",
        "indent with spaces",
    ),
    (
        "mapping values are not allowed",
        'a ":" is not allowed here',
        'align the key with the ones above, or put a value that holds ": " in quotes',
    ),
    (
        "could not find expected ':'",
        'a key must be followed by ":"',
        None,
    ),
    (
        "expected <block end>",
        "the indentation does not fit the lines above",
        "align the keys of one map, and the items of one list",
    ),
    (
        "expected ',' or",
        'a "," or a closing bracket is missing',
        "close what is opened with { or [",
    ),
    (
        "expected the node content",
        "a value or a closing bracket is missing",
        "close what is opened with { or [, and put text that starts with a special character in quotes",
    ),
    (
        "expected a single document",
        "a second document starts here",
        'remove "---"; several files are merged with -f one.yaml -f two.yaml',
    ),
    (
        "unknown escape",
        'an unknown "\\" escape',
        "write \\\\ for a backslash, or use single quotes",
    ),
    (
        "duplicate anchor",
        "a second anchor (&) of the same name",
        "give each anchor its own name; text that starts with & needs quotes",
    ),
    (
        "that cannot start any token",
        "a value may not start with this character",
        "put it in quotes",
    ),
)


class Refused(yaml.MarkedYAMLError):
    """Correct YAML that a spec may not hold; its words are ours already."""


def refused(what: str, at: Any) -> Refused:
    """The error for a node or event that a spec may not hold."""
    return Refused(problem=what, problem_mark=at.start_mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlMistake:
    """What is wrong, where (from 1), what to do."""

    text: str
    line: int
    column: int
    hint: str | None = None


def in_our_words(error: Exception, text: str) -> YamlMistake:
    """Translates whatever composing a YAML text raised."""
    if isinstance(error, ReaderError):
        before = text[: error.position].rpartition("\n")
        return YamlMistake(
            text=f"the character U+{ord(text[error.position]):04X} is not allowed in YAML",
            line=before[0].count("\n") + (2 if before[1] else 1),
            column=len(before[2]) + 1,
            hint="remove it",
        )
    if not isinstance(error, yaml.MarkedYAMLError):
        return YamlMistake(text="the spec is not YAML that can be read", line=1, column=1)
    mark = error.problem_mark or error.context_mark
    said = f"{error.context} {error.problem}"
    what, hint = "this is not YAML that can be read", None
    if isinstance(error, Refused):
        what = str(error.problem)
    elif "quoted scalar" in said and "unexpected end" in said:
        mark = error.context_mark or mark
        what, hint = "a quote is opened here and never closed", "close it"
    else:
        for part, words, advice in _KNOWN:
            if part in said:
                what, hint = words, advice
                break
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    return YamlMistake(text=what, line=line, column=column, hint=hint)
