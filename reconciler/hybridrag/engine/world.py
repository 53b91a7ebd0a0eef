"""The assembled environment: what is wanted, the backends that can be asked, and where state lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import NotFound
from hybridrag.journal import Registry, RegistryEntry, facts_of
from hybridrag.model.facts import Facts
from hybridrag.model.ports import Backend, Store
from hybridrag.model.wanted import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One environment. `state` is its own folder; `files` is the JSON backend, declared or implied."""

    environment: str
    spec_digest: str
    spec_files: tuple[str, ...]
    wanted: Mapping[str, Wanted]
    backends: Mapping[str, Backend]
    files: Backend
    state: Path

    @property
    def journal_path(self) -> Path:
        return self.state / "journal.db"

    @property
    def registry(self) -> Registry:
        return Registry(self.state / "registry.yaml")

    def database(self, name: str) -> Wanted:
        """Raises NotFound, listing what there is."""
        try:
            return self.wanted[name]
        except KeyError:
            known = ", ".join(sorted(self.wanted)) or "none"
            raise NotFound(
                f'database "{name}" is not in the spec (there are: {known})',
                hint="hybridrag status lists them",
            ) from None

    def backend(self, name: str) -> Backend:
        try:
            return self.backends[name]
        except KeyError:
            known = ", ".join(sorted(self.backends)) or "none"
            raise NotFound(
                f'backend "{name}" is not in the spec (there are: {known})',
                hint="hybridrag status lists them",
            ) from None

    def chosen(self, targets: Iterable[str] = (), exclude: Iterable[str] = ()) -> list[Wanted]:
        """The databases a command is about, in the spec's order."""
        wanted_names = {self.database(name).database for name in targets} or set(self.wanted)
        wanted_names -= {self.database(name).database for name in exclude}
        return [item for name, item in self.wanted.items() if name in wanted_names]

    def source_store(self, item: Wanted) -> Store:
        """The database's JSON files."""
        return self.files.store(item.path, item.workspace, item.embedding)

    def store(self, item: Wanted, backend: str) -> Store:
        return self.backend(backend).store(item.path, item.workspace, item.embedding)

    def serving(self, item: Wanted) -> Backend:
        """The backend that the registry names for a database; the JSON files when it names none."""
        entry = self.registry.read().databases.get(item.database)
        if entry is None or entry.backend is None or entry.backend == self.files.name:
            return self.files
        return self.backend(entry.backend)


class RegistryPointer:
    """`model.ports.Pointer` over the environment's registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def current(self, database: str) -> Facts:
        return facts_of(self._registry.read().databases.get(database))

    def _entry(self, database: str, path: str, backend: Backend, workspace: str) -> RegistryEntry:
        known = self._registry.read().databases.get(database)
        kept = known.model_dump() if known else {}
        return RegistryEntry.model_validate(
            {
                **kept,
                "name": database,
                "path": path,
                "backend": backend.name,
                "backend_type": backend.type,
                "backend_config": backend.registry_config(workspace) or None,
            }
        )

    def register(self, database: str, path: str) -> None:
        """A database that its JSON files serve, as they would without an entry."""
        self._registry.put(RegistryEntry(name=database, path=path))

    def point(self, database: str, path: str, backend: Backend, workspace: str) -> None:
        self._registry.put(self._entry(database, path, backend, workspace))

    def agrees(self, database: str, path: str, backend: Backend, workspace: str) -> bool:
        known = self._registry.read().databases.get(database)
        return known is not None and known == self._entry(database, path, backend, workspace)
