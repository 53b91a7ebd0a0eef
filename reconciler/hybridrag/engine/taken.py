"""Whose the place is that a database is to be moved to: known from the registries, of this environment and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator

from hybridrag.backends import one_folder, registered
from hybridrag.errors import HybridragError
from hybridrag.journal import Registry, RegistryEntry, SlotEntry
from hybridrag.model.ports import Backend
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON

from .world import World


def taken(world: World, item: Wanted, backend: Backend) -> str | None:
    """Who else is served from the place that `item` has in a backend, or keeps a copy there; in words."""
    for environment, entry in _others(world, item):
        where = "" if environment == world.environment else f' of environment "{environment}"'
        if _serves(entry, item, backend, same_spec=environment == world.environment):
            return f'serves database "{entry.name}"{where}'
        if environment == world.environment and _keeps(world, entry, item, backend):
            return f'keeps what database "{entry.name}" can be rolled back to'
    return None


def _others(world: World, item: Wanted) -> Iterator[tuple[str, RegistryEntry]]:
    """Environments lie beside each other in one state folder."""
    for path in sorted(world.state.parent.glob("*/registry.yaml")):
        own = path.parent == world.state
        try:
            entries = Registry(path).read().databases.values()
        except HybridragError:
            if own:
                raise
            continue  # it is read, and told, where it is used
        yield from ((path.parent.name, each) for each in entries if not (own and each.name == item.database))


def _serves(entry: RegistryEntry, item: Wanted, backend: Backend, *, same_spec: bool) -> bool:
    slots: tuple[RegistryEntry | SlotEntry, ...] = (entry, *(entry.slots or {}).values())
    for slot in slots:
        if slot.backend_type == JSON == backend.type and one_folder(entry.path, item.path):
            return True
        if slot.backend_type != backend.type or backend.type == JSON:
            continue
        mine = registered(backend.type, backend.registry_config(item.workspace))
        theirs = registered(slot.backend_type, slot.backend_config)
        if mine is None or theirs is None:
            continue
        if theirs == mine or (same_spec and slot.backend == backend.name and theirs.owner == mine.owner):
            return True
    return False


def _keeps(world: World, entry: RegistryEntry, item: Wanted, backend: Backend) -> bool:
    """A kept copy has no address of its own: it lies where the spec says of that database."""
    other = world.wanted.get(entry.name)
    for kept in entry.kept:
        if kept.backend_type == JSON == backend.type:
            if one_folder(entry.path, item.path):
                return True
        elif kept.backend == backend.name and other is not None and other.workspace == item.workspace:
            return True
    return False
