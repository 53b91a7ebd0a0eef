"""The registry as the places have it: what they say of a database counts, the file of the state folder is their cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hybridrag.journal import Registry, RegistryEntry, RegistryFile

from .serving import Located


class LocatedRegistry(Registry):
    """`located` by database, as `engine.locating` fills it; databases that are not in it are as the file says."""

    def __init__(self, path: Path, located: dict[str, Located]) -> None:
        super().__init__(path)
        self._located = located
        self._file: RegistryFile | None = None

    def file(self) -> RegistryFile:
        """What the file itself says."""
        return self._file if self._file is not None else super().read()

    def held(self) -> LocatedRegistry:
        held = LocatedRegistry(self.path, self._located)
        held._file = self.file()
        return held

    def read(self) -> RegistryFile:
        file = self.file()
        found = {name: each.entry for name, each in self._located.items() if each.entry is not None}
        return file.model_copy(update={"databases": {**file.databases, **found}})

    def found(self, entry: RegistryEntry) -> None:
        """What serves by now: the places have been told."""
        known = self._located.get(entry.name) or Located()
        self._located[entry.name] = replace(known, entry=entry, contradiction=None, remedy=None)

    def drop(self, name: str) -> None:
        self._located.pop(name, None)
        super().drop(name)

    def _whole(self) -> RegistryFile:
        return self.file()
