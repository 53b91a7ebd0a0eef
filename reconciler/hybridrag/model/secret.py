"""Secrets: how a spec refers to one, and the value that cannot be printed.

A spec never holds a secret, only a `SecretRef`. `adapters.secrets` turns it into a `Secret` at connect
time. No other room may resolve one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from pydantic import Field, model_validator

from .strict import Strict


class SecretRef(Strict):
    """A typed reference to a secret: exactly one of `env`, `file`, `command`.

    `file` is relative to the spec's folder; `command` is an argv list whose first line of output counts.
    """

    env: str | None = Field(default=None, min_length=1, description="Name of an environment variable.")
    file: Path | None = Field(default=None, description="File whose first line is the secret.")
    command: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments; the first line it prints is the secret.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretRef:
        if sum(value is not None for value in (self.env, self.file, self.command)) != 1:
            raise ValueError("give exactly one of env, file, command")
        return self

    def __str__(self) -> str:
        if self.env is not None:
            return f"env {self.env}"
        return f"file {self.file}" if self.file is not None else "command"


_TELLING = 4
"""Characters; those of a shorter one are part of every text."""
_resolved: set[str] = set()


class Secret:
    """A resolved secret. Printing, formatting or pickling it never shows the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        if len(value) >= _TELLING:
            _resolved.add(value)

    def reveal(self) -> str:
        """The value itself; call this only in the line that hands it to a client."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret cannot be pickled")


def without(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret starred, also as a repr, as JSON or as part of an address spells it."""
    for secret in secrets:
        forms = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
    return text


def without_resolved(text: str) -> str:
    """The same with every secret that this process resolved, the longest first: a connection string holds its password."""
    return without(text, sorted(_resolved, key=len, reverse=True))


class SecretResolver(Protocol):
    """Turns a reference into its value; raises SpecInvalid when it does not exist."""

    def resolve(self, ref: SecretRef, *, used_by: str) -> Secret: ...
