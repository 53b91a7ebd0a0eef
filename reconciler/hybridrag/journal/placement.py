"""What a note says (`model.notes`): where one database is served and kept, as of one revision, and what this place is to it.

Written by the engine to every place that a database is on, was on, or is moved to. The registry of a state folder is a
cache of the newest one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, ValidationError

from hybridrag.errors import SpecInvalid
from hybridrag.model.data import Slot
from hybridrag.model.notes import Note
from hybridrag.model.selection import Embedding
from hybridrag.model.strict import Strict

from .registry import RegistryEntry

SHARED_FIELDS = ("name", "path", "backend", "backend_type", "backend_config", "slots", "kept", "revision")
"""What of a registry entry stands with the data; the rest is the state folder's own."""


class EmbeddingNote(Strict):
    """The embedding space of the vectors: what LightRAG is told to use. `model` is null where it is told none."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str | None = None
    dim: int


class Placement(Strict):
    """One note. `here` is the name that the writer's spec has for this place, "json" for files.

    `serving` and `kept` are the slots that this very place serves, or keeps as the way back. `run` made the change, at `at`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal[1] = 1
    revision: int
    environment: str
    database: str
    run: str
    at: datetime
    here: str
    serving: tuple[Slot, ...] = ()
    kept: tuple[Slot, ...] = ()
    embedding: EmbeddingNote
    entry: RegistryEntry

    @property
    def name(self) -> str:
        """The name of the note in its place."""
        return note_name(self.environment, self.database)

    @property
    def space(self) -> Embedding:
        return Embedding(model=self.embedding.model, dim=self.embedding.dim)

    def to_note(self) -> Note:
        return Note(self.revision, self.model_dump_json(exclude_none=True, by_alias=True))


def note_name(environment: str, database: str) -> str:
    """One for each database of each environment."""
    return f"{environment}/{database}"


def read_placement(name: str, note: Note, place: str) -> Placement:
    """The note of a place. Raises SpecInvalid for one that cannot be understood; `place` in words."""
    try:
        return Placement.model_validate_json(note.document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise SpecInvalid(
            f'the note of hybridrag about "{name}" in {place} cannot be understood ({at}: {first["msg"]}); '
            "a newer hybridrag may have written it",
            hint="run the hybridrag that wrote it, or update this one",
        ) from None


def shared(entry: RegistryEntry) -> RegistryEntry:
    """An entry with only what stands with the data."""
    fields = entry.model_dump(include=set(SHARED_FIELDS))
    return RegistryEntry.model_validate(fields)
