"""YAML -> frozen models with line numbers: what a user wants, checked and ready to plan from.

Used by cli and api (`load`, `find_files`), planner and engine (`Environment`, `LoadedSpec`). Imports
backends, model and errors only; reads files and variables, resolves no secret. Writes nothing but the spec
itself, where a command edits it (`SpecFiles`).
"""

from __future__ import annotations

from .edit_files import SpecFiles
from .editing import CannotEdit, Drop, Put, literal
from .loader import DEFAULT_FILE, LoadedSpec, find_files, load
from .models import CommandWriterSpec, DatabaseSpec, EmbeddingSpec, Environment, MigrationSpec, StateSpec

__all__ = [
    "DEFAULT_FILE",
    "CannotEdit",
    "CommandWriterSpec",
    "DatabaseSpec",
    "Drop",
    "EmbeddingSpec",
    "Environment",
    "LoadedSpec",
    "MigrationSpec",
    "Put",
    "SpecFiles",
    "StateSpec",
    "find_files",
    "literal",
    "load",
]
