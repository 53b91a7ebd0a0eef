"""YAML -> frozen models with line numbers: what a user wants, checked and ready to plan from.

Used by cli and api (`load`, `find_files`), planner and engine (`Environment`, `LoadedSpec`). Imports
backends, model and errors only; reads files and variables, writes nothing, resolves no secret.
"""

from __future__ import annotations

from .loader import LoadedSpec, find_files, load
from .models import DatabaseSpec, EmbeddingSpec, Environment, MigrationSpec, StateSpec, WriterSpec

__all__ = [
    "DatabaseSpec",
    "EmbeddingSpec",
    "Environment",
    "LoadedSpec",
    "MigrationSpec",
    "StateSpec",
    "WriterSpec",
    "find_files",
    "load",
]
