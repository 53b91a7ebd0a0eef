"""YAML -> frozen models with line numbers: what a user wants, checked and ready to plan from.

Used by cli and api (`load`, `find_files`), planner and engine (`Environment`, `LoadedSpec`). Imports
backends, model and errors only; reads files and variables, resolves no secret. Writes nothing but the spec
itself, where a command edits it (`SpecFiles`).
"""

from __future__ import annotations

from .edit_files import SpecFiles
from .editing import CannotEdit, Drop, Put, literal
from .loader import DEFAULT_FILE, LoadedSpec, find_files, load
from .models import DatabaseSpec, EmbeddingSpec, Environment, MigrationSpec, StateSpec
from .values import seconds_of
from .writers import (
    CommandWriterSpec,
    DockerWriterSpec,
    EmbeddingModelSpec,
    LlmSpec,
    NoWriterSpec,
    ServerWriterSpec,
    SourceSpec,
    SystemdWriterSpec,
    WatcherWriterSpec,
    WriterSpec,
    how_stopped,
)

__all__ = [
    "DEFAULT_FILE",
    "CannotEdit",
    "CommandWriterSpec",
    "DatabaseSpec",
    "DockerWriterSpec",
    "Drop",
    "EmbeddingModelSpec",
    "EmbeddingSpec",
    "Environment",
    "LlmSpec",
    "LoadedSpec",
    "MigrationSpec",
    "NoWriterSpec",
    "Put",
    "ServerWriterSpec",
    "SourceSpec",
    "SpecFiles",
    "StateSpec",
    "SystemdWriterSpec",
    "WatcherWriterSpec",
    "WriterSpec",
    "find_files",
    "how_stopped",
    "literal",
    "load",
    "seconds_of",
]
