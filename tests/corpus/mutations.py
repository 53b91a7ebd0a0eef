"""Hypothesis strategies that spoil a good file: single bytes, whole pieces, and one value of its structure by another."""

from __future__ import annotations

import copy
import datetime as dt
import json
import math
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

TEXTS = (
    "", " ", "\0", "\x1b[31m", "x" * 5000, "${NOT_SET}", "${", "$", "${a b}", "${é}", "${X:-${X:-${X}}}", "../..", "/",
    "/dev/null", "/dev/zero", "~", "~nobody/x", "\ud800", "\ufeff", "no", "null", "1e999", ".inf", ".nan", "2026-99-99", "9" * 60,
    "a\nb", "a\u2028b", "٣", "1_0", "postgresql://u:p@h/d?x=%zz", "http://[::1", "-1s", "99999999999d", "1e400MB", "-50%", "NaN MB",
    "a/b", "\u202e\U0001f4a5", "d0", "nan", "True",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, [], {}, -1, 0, 2**63, 2**200, 1.5, 1e308, math.inf, math.nan, [[[[]]]], {"a": {"b": 1}}, [None], [1, "a"],
    {"env": "X"}, {"env": None}, {"env": "A B"}, {"env": "\0"}, {"file": "/dev/zero"}, {"file": "."}, {"command": []},
    {"command": ["\0"]}, {"env": "X", "file": "y"}, *TEXTS,
)  # fmt: skip
YAML_VALUES = (*VALUES, dt.date(2026, 1, 1), dt.datetime(2026, 1, 1), b"\xff", {1: 2}, {None: 1}, {"": 1})
PIECES = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r", b"\t", b"{" * 500, b"[" * 5000, b"- " * 500, b"? ", b"&a [*a]",
    b"*a", b"<<: *a\n", b"<<: [1]\n", b"!!python/name:os.system x", b"!!binary x", b"!!float x", b"!!bool x", b"!!timestamp x",
    b"%YAML 9.9\n---\n", b"---\n", b"9" * 5000, b"NaN", b"-Infinity", b'"\\ud800"', b"\\u0000", b'"', b"'", b"1e999", b": ", b"#", b"|",
    b"`", b"}", b"]", b"<!-- x -->", b"<![CDATA[", b"&lt;", b"&#0;", b"&x;", b"</node>", b"<node/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
)  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """The file with one to three places of it changed, cut, repeated, or with something put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.one_of(st.integers(0, 8), st.integers(0, 4096))))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
        data = draw(
            st.sampled_from(
                (
                    data[:start] + piece + data[start:],
                    data[:start] + piece + data[end:],
                    data[:start] + data[end:],
                    data[:start],
                    data[:end] + data[start:end] * 3 + data[end:],
                    data[:start] + bytes(end - start) + data[end:],
                )
            )
        )
    return data


@st.composite
def restructured(draw: st.DrawFn, value: Any, keys: tuple[str, ...], odd: tuple[Any, ...] = VALUES) -> Any:
    """The document with one to three of its values replaced, removed, renamed or joined by another."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(value)
        if not places:
            break
        inside, key = draw(st.sampled_from(places))
        other = copy.deepcopy(draw(st.sampled_from(odd)))
        what = draw(st.integers(0, 6))
        if what == 0 and isinstance(inside, dict):
            del inside[key]
        elif what == 1 and isinstance(inside, dict):
            inside[draw(st.sampled_from((*keys, *TEXTS)))] = other
        elif what == 2 and isinstance(inside, dict):
            inside[draw(st.sampled_from((*keys, "", "\0")))] = inside.pop(key)
        elif what == 3 and isinstance(inside, list):
            inside.append(other)
        else:
            inside[key] = other
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [(value, key) for key, _ in inner] + [place for _, each in inner for place in _places(each)]


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def as_json(value: Any) -> bytes:
    """As LightRAG writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")


def of_yaml(text: str, keys: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """A YAML file spoiled in its bytes or in its structure."""
    return spoiled(text.encode()) | restructured(yaml.safe_load(text), keys, YAML_VALUES).map(as_yaml)


def of_json(
    data: bytes, keys: tuple[str, ...], write: Callable[[Any], bytes] = as_json
) -> st.SearchStrategy[bytes]:
    """A JSON file likewise."""
    return spoiled(data) | restructured(json.loads(data), keys).map(write)
