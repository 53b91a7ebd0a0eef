"""What an unquoted YAML scalar means: YAML 1.2's core schema.

Read by `yaml_lines` for text in a file and by `interpolate` for text from a variable, so both agree.
Not YAML 1.1, which PyYAML speaks by itself: there `no` is false, `1_0` is ten and `22:22` is a number.
"""

from __future__ import annotations

import re

from .nodes import Scalar

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Longer digits stay text: no number in a spec is that long, and int() of thousands of digits fails.
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_BASED = re.compile(r"0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,4})?")


def plain_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar: None, a bool, an int, a float, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def unfit(text: str) -> str | None:
    """Why a text cannot be a value, or None: no path, name or server can take these characters."""
    if "\0" in text:
        return "holds the character U+0000, which nothing can use"
    if any("\ud800" <= c <= "\udfff" for c in text):
        return "holds half of a surrogate pair, which is not valid Unicode"
    return None
