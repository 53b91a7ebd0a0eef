"""A change of the user's spec by a command: tried in memory first, then written together with its secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridrag.errors import SpecInvalid

from .given_secrets import Given, KeptSecret

if TYPE_CHECKING:
    from hybridrag.spec import LoadedSpec, SpecFiles


class SpecChange:
    """The same edits twice: as they are tried, and as they will stand. They differ in a secret not kept yet."""

    def __init__(self, read: Callable[[], SpecFiles]) -> None:
        self._trial, self._files = read(), read()
        self._variables: dict[str, str] = {}
        self._kept: KeptSecret | None = None
        self.spec = self._trial.load()
        """The spec as it is."""

    def put(self, *path: str, value: Any) -> None:
        """Raises CannotEdit."""
        from hybridrag.spec import Put, literal

        for files in (self._trial, self._files):
            files.change(Put(path=path, value=literal(value)))

    def put_placement(self, database: str, backend: str | dict[str, str]) -> None:
        """Where a database belongs: one name, or one for each slot. Raises CannotEdit."""
        from hybridrag.spec import Drop, Put, literal

        path = ("databases", database, "backend")
        changes: list[Drop | Put] = [Put(path=path, value=literal(backend))]
        if not isinstance(backend, str) or not isinstance(
            self.spec.environment.databases[database].backend, str
        ):
            changes.insert(0, Drop(path=path))  # a name and a map do not stand in the same lines
        for files in (self._trial, self._files):
            files.change(*changes)

    def put_backend(
        self, name: str, entry: dict[str, Any], key: str, secret: Given | None, state: Path
    ) -> None:
        """A new backend whose `key` refers to a secret, which is kept below the environment's state folder."""
        if secret is None:
            self.put("backends", name, value=entry)
            return
        from hybridrag.spec import Put, literal

        base = self.spec.base_dir
        self._kept = KeptSecret(secret, state / "secrets", f"{name}.{key}", base)
        tried, self._variables = secret.on_trial(base)
        place = ("backends", name)
        self._trial.change(Put(path=place, value=literal({**entry, key: tried})))
        self._files.change(Put(path=place, value=literal({**entry, key: self._kept.reference})))

    def tried(self) -> LoadedSpec:
        """The spec as it would be. Raises SpecInvalid, at the lines that would have been written."""
        try:
            return self._trial.load(more=self._variables)
        except SpecInvalid as error:
            error.hint = error.hint or "nothing was written: with this change the spec would not be valid"
            raise

    def written(self) -> LoadedSpec:
        """The spec as it stands after `write`."""
        return self._files.load()

    def write(self) -> None:
        """The secret, then the spec; neither when one fails."""
        try:
            if self._kept is not None:
                self._kept.write()
            self._files.write()
        except BaseException:
            if self._kept is not None:
                self._kept.undo()
            raise

    def undo(self) -> None:
        """Both as they were, unless somebody changed the spec since."""
        if self._files.undo() and self._kept is not None:
            self._kept.undo()

    @property
    def files(self) -> list[str]:
        """Names of the files that change, as a user would type them."""
        from hybridrag.spec.loader import shown_path

        return [shown_path(path) for path in self._files.changed]

    @property
    def secret_file(self) -> Path | None:
        """Where a secret is kept that was given as a value."""
        return self._kept.path if self._kept is not None else None
