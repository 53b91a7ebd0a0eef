"""The assembled environment: what is wanted, the backends that can be asked, and where state lies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hybridrag.errors import NotFound
from hybridrag.model.data import ALL_SLOTS, Slot
from hybridrag.model.ports import Backend, Store
from hybridrag.model.selection import Selection, Told
from hybridrag.model.services import Halter
from hybridrag.model.wanted import Place, Wanted, in_words
from hybridrag.model.watching import Models, Watched
from hybridrag.planner import JSON, in_use

from .located_registry import LocatedRegistry
from .pointer import RegistryPointer
from .serving import Located


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
    halters: Mapping[str, Halter] = field(default_factory=dict)
    """What stops the writer of each database that has one."""
    watched: Mapping[str, Watched] = field(default_factory=dict)
    """What the daemon feeds each database from, where its writer is the daemon."""
    settings: Mapping[str, Callable[[], Sequence[Told]]] = field(default_factory=dict)
    """What settings files near each database say of its embedding. Read-only."""
    sizes: Callable[[Path, Collection[Slot]], Mapping[str, int]] = field(default=lambda folder, slots: {})
    """Bytes by name of the JSON files that hold some slots of a database in a folder."""
    models: Mapping[str, Models] = field(default_factory=dict)
    """What each database is asked and fed with."""
    located: dict[str, Located] = field(default_factory=dict)
    """What the places themselves say of each database; filled by `engine.locating`, empty before it looked."""

    @property
    def journal_path(self) -> Path:
        return self.state / "journal.db"

    @property
    def registry(self) -> LocatedRegistry:
        return LocatedRegistry(self.state / "registry.yaml", self.located)

    @property
    def pointer(self) -> RegistryPointer:
        return RegistryPointer(self)

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

    def server_for(self, item: Wanted) -> str | None:
        """The backend to move a database to when its files become too big; None where there is no server."""
        elsewhere = next((name for name, backend in self.backends.items() if backend.type != JSON), None)
        return next((place.name for place in item.places if place.type != JSON), elsewhere)

    def holder(self, name: str) -> Backend:
        """The backend of that name in facts, where "json" is the databases' own files."""
        return self.files if name == JSON else self.backend(name)

    def store(self, item: Wanted, backend: str, slots: frozenset[Slot] = ALL_SLOTS) -> Store:
        """Some slots of a database in one backend; "json" is its own files."""
        return self.holder(backend).store(item.path, item.workspace, item.embedding, slots)

    def serving(self, item: Wanted) -> dict[Slot, Backend]:
        """The backend that the registry names for each slot; the JSON files where it names none."""
        current = in_use(self.pointer.current(item.database))
        return {slot: self.holder(name) for slot, name in current.items()}

    def as_it_is(self, item: Wanted) -> World:
        """This world, with the database wanted where it is: for looking at what serves, whatever the spec wants."""
        places = {
            slot: Place(
                name=backend.name,
                type=backend.type,
                provisioned=backend.provisioned,
                serves=backend.serves,
                mends=backend.mends,
            )
            for slot, backend in self.serving(item).items()
        }
        return replace(self, wanted={**self.wanted, item.database: replace(item, placement=places)})

    def refuse_mislaid(self, item: Wanted, *, kept: bool = True, settling: bool = False) -> None:
        """Raises where a change of the spec would have the database, or what is kept of it, looked for elsewhere.

        Also where the places contradict each other about what serves, unless the command settles that.
        """
        if error := self.pointer.mislaid(item.database, kept=kept):
            raise error
        found = self.located.get(item.database)
        if not settling and found is not None and found.contradiction is not None:
            raise found.error(item.database)

    def file_sizes(self, item: Wanted) -> Mapping[str, int]:
        """Bytes of the JSON files that serve a database now, by name; nothing for slots that are elsewhere."""
        slots = [slot for slot, backend in self.serving(item).items() if backend.type == JSON]
        return self.sizes(Path(item.path), slots) if slots else {}

    def selection(self, item: Wanted) -> Selection:
        """What LightRAG needs to use the database as it is now. Raises PlanRefused where it is not to be found."""
        self.refuse_mislaid(item, kept=False)
        serving = self.serving(item)
        found = Selection()
        for backend in dict.fromkeys(serving.values()):
            slots = frozenset(slot for slot in Slot if serving[slot] is backend)
            found = found.beside(backend.store(item.path, item.workspace, item.embedding, slots).selection())
        return found


def served_by(serving: Mapping[Slot, Backend]) -> str:
    """A placement in words."""
    return in_words({slot: backend.name for slot, backend in serving.items()})
