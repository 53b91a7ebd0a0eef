"""What a daemon works with, read anew whenever spec or registry change. Built by `assembly`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.wanted import Thresholds
from hybridrag.model.watching import Ingester, Models, Watched


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One database as spec and registry have it now.

    `backend` in words; `way_out` is the command that moves it out of its files; `in_files`: some slot is in JSON
    files, whose bytes by name `sizes` tells; `inputs` are the files that this was read from, the registry first.
    """

    watched: Watched
    backend: str
    selection: Selection
    embedding: Embedding
    models: Models
    environ: Mapping[str, str]
    base_dir: Path
    thresholds: Thresholds
    way_out: str
    in_files: bool
    sizes: Callable[[], Mapping[str, int]]
    inputs: tuple[Path, ...]

    def writes_like(self, other: View) -> bool:
        """Whether an ingester that was started for the other one is right for this one as well."""
        return self._for_writing() == other._for_writing()

    def _for_writing(self) -> tuple[object, ...]:
        place = self.selection
        classes = (place.kv, place.vector, place.graph, place.doc_status, place.working_dir, place.workspace)
        models = [
            model and (model.binding, model.name, model.base_url)
            for model in (self.models.llm, self.models.embedding)
        ]
        return (
            *classes, dict(place.variables), sorted(place.secrets), self.embedding, *models,
            self.models.function, dict(self.environ), self.base_dir,
        )  # fmt: skip


Load = Callable[[], View]
"""Raises HybridragError where spec or registry cannot be used."""


class MakeIngester(Protocol):
    """What starts LightRAG for a view. `log` takes what it prints; `inherit` are file descriptors that its process keeps."""

    def __call__(self, view: View, *, log: Path, inherit: tuple[int, ...]) -> Ingester: ...


def stamps(paths: tuple[Path, ...]) -> tuple[object, ...]:
    """Changes when one of the files does."""
    found: list[object] = []
    for path in paths:
        try:
            info = path.stat()
            found.append((info.st_mtime_ns, info.st_size, info.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)
