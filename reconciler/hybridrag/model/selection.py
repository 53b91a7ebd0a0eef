"""What LightRAG needs to use a store: classes, variables, arguments, and the embedding space of its vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What LightRAG needs to use a store: a class for each of its slots, variables and constructor arguments.

    A slot that the store does not hold is None. `variables` are process environment; `secrets` are those of
    them that must never be shown.
    """

    kv: str | None = None
    vector: str | None = None
    graph: str | None = None
    doc_status: str | None = None
    working_dir: str | None = None
    workspace: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Callable[[], str]] = field(default_factory=dict)

    def beside(self, other: Selection) -> Selection:
        """Both together: one database whose slots lie in two stores."""
        return Selection(
            kv=self.kv or other.kv,
            vector=self.vector or other.vector,
            graph=self.graph or other.graph,
            doc_status=self.doc_status or other.doc_status,
            working_dir=self.working_dir or other.working_dir,
            workspace=self.workspace or other.workspace,
            variables={**other.variables, **self.variables},
            secrets={**other.secrets, **self.secrets},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """The embedding space of a database: model name (decides table names), dimensions."""

    model: str | None
    dim: int

    @property
    def suffix(self) -> str | None:
        """What LightRAG appends to the names of vector places (`lightrag/base.py`); None where no model is named."""
        name = plain_model(self.model)
        return f"{name}_{self.dim}d" if name else None


def plain_model(name: str | None) -> str:
    """A model's name as it stands in the name of a place; models that agree in it share their places."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", (name or "").strip().lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a program's settings say of the embedding: `where` they stand, the `model` and `dim` that they name.

    A model that is "" is said to be none; None says nothing.
    """

    where: str
    model: str | None = None
    dim: int | None = None


class SchemaMaker(Protocol):
    """Lets LightRAG itself create its tables, in a process of its own. Implemented in `adapters`."""

    async def create(self, selection: Selection, embedding: Embedding) -> None: ...
