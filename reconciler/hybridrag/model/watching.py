"""The nouns of the daemon: what a database is fed from, with which models, and how a document fares."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A folder whose files are ingested. `path` is absolute; `extensions` begin with a dot, in lower case."""

    kind: str
    path: str
    recursive: bool
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One of LightRAG's own bindings. `name` is None where the database says it (embeddings); `key` may raise SpecInvalid."""

    binding: str
    name: str | None
    base_url: str | None
    key: Callable[[], str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What extracts and answers, and what embeds. `function`, where given, embeds instead (`embedding.function`)."""

    llm: Model | None = None
    embedding: Model | None = None
    function: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A database that the daemon feeds. `drain_s`: how long the document in hand may take when it is to pause."""

    database: str
    source: Source
    interval_s: int
    drain_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file of a source. `name` is its path below the source with "/", `digest` of its content (SHA-256, hex)."""

    name: str
    text: str
    digest: str


class Fate(str, enum.Enum):
    """What became of a document."""

    INGESTED = "ingested"
    KNOWN = "known"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one document. `seconds` it took; `characters` of its text; `reason` why it failed."""

    name: str
    fate: Fate
    characters: int
    seconds: float
    reason: str | None = None


class Ingester(Protocol):
    """LightRAG in a process of its own, on the stores that served when it was started."""

    async def start(self) -> None:
        """Returns when LightRAG is up. Raises BackendUnavailable (worth another attempt) or SpecInvalid (not)."""
        ...

    async def known(self) -> Mapping[str, str]:
        """Digest of the content by name, of every document that the database's own doc status calls processed."""
        ...

    async def ingest(self, documents: Sequence[Document]) -> list[Outcome]:
        """Each document once, whatever was cut off before; one whose name is known with other content replaces that.

        Raises BackendUnavailable where the connection is lost, or the process; then it must be stopped, and the
        documents are asked for again.
        """
        ...

    async def stop(self) -> None:
        """Returns when the process is gone: nothing is written any more. Idempotent, never raises."""
        ...
