"""What served a database before and is kept: where, since when and until when; which of it is the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hybridrag.errors import NotFound
from hybridrag.journal import Registry
from hybridrag.model.data import Slot
from hybridrag.model.wanted import Wanted
from hybridrag.planner.parts import names

from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One kept copy. `name` is its backend as facts name it ("json" for files), `backend` as the user does.

    From `until` on `hybridrag retire` deletes it. `fingerprint` of the data when it was left, None where it is not
    known; `left_behind`: it holds records that did not come along; `retiring`: its deletion has begun. `elsewhere`: the
    folder of kept files, where the spec's is another one.
    """

    name: str
    backend: str
    type: str
    slots: tuple[Slot, ...]
    since: datetime
    until: datetime
    fingerprint: str | None
    left_behind: bool
    retiring: bool
    elsewhere: str | None = None

    @property
    def shown(self) -> str:
        """The backend, and its slots where they are not all."""
        some = names(self.slots)
        return f"{self.backend} ({some})" if some else self.backend


def kept_of(registry: Registry, item: Wanted) -> tuple[Kept, ...]:
    """Everything that the registry says is kept of a database, the oldest first."""
    entry = registry.read().databases.get(item.database)
    found = [
        Kept(
            name=kept.name,
            backend=kept.backend,
            type=kept.backend_type,
            slots=tuple(slot for slot in Slot if slot in kept.slots),
            since=kept.since,
            until=kept.since + timedelta(seconds=item.keep_source_s),
            fingerprint=kept.fingerprint,
            left_behind=kept.left_behind,
            retiring=kept.retiring,
            elsewhere=entry.path if entry and kept.name == "json" and entry.path != item.path else None,
        )
        for kept in (entry.kept if entry else ())
    ]
    return tuple(sorted(found, key=lambda kept: kept.since))


def way_back(world: World, item: Wanted) -> tuple[Kept, ...]:
    """What the newest switch left, which may be several parts. Raises NotFound where nothing is kept."""
    kept = [each for each in kept_of(world.registry, item) if not each.retiring]
    if not kept:
        raise NotFound(
            f'database "{item.database}": nothing is kept that it could go back to',
            hint=f"hybridrag migrate {item.database} --to BACKEND moves it to any backend",
        )
    back = tuple(each for each in kept if each.since == kept[-1].since)
    for each in back:
        if each.elsewhere is not None:
            raise NotFound(
                f'database "{item.database}": what it could go back to are the files in "{each.elsewhere}"; the spec names '
                f'"{item.path}", and they are not there',
                hint="run it where those files are, or set the database's path to them; "
                f"hybridrag migrate {item.database} --to BACKEND moves it to any backend",
            )
    return back


def placement_after(world: World, item: Wanted, back: Sequence[Kept]) -> dict[Slot, str]:
    """The backend of each slot once the kept parts serve again, by the names that facts use."""
    placed = {
        slot: "json" if backend.type == "json" else backend.name
        for slot, backend in world.serving(item).items()
    }
    return {**placed, **{slot: each.name for each in back for slot in each.slots}}
