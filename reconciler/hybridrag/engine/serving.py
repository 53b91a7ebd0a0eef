"""Which of the notes that were found tells what serves, and where they contradict each other. Pure; see `locating`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hybridrag.errors import PlanRefused
from hybridrag.journal import KeptEntry, RegistryEntry, SlotEntry
from hybridrag.journal.placement import Placement
from hybridrag.model.data import Slot
from hybridrag.model.selection import Embedding
from hybridrag.planner import JSON

Config = dict[str, Any] | None
"""`backend_config` of the registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a place is to another database: the slots it serves, and those it keeps as that one's way back."""

    environment: str
    database: str
    serving: frozenset[Slot]
    kept: frozenset[Slot]
    neighbour: bool
    """Whether it is one of another environment."""

    def describe(self, slots: frozenset[Slot]) -> str | None:
        """In words, for some slots; None where it does not touch them."""
        where = f' of environment "{self.environment}"' if self.neighbour else ""
        if self.serving & slots:
            return f'serves database "{self.database}"{where}'
        if self.kept & slots:
            return f'keeps what database "{self.database}"{where} can be rolled back to'
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What is known of one database. `entry`: where it is served and kept, None where nothing says anything.

    `contradiction` says why that cannot be told, and `remedy` what to do. `lagging` are places whose note is older, or
    missing though they serve; `unknown` those that could not be asked, with the reason. `embedding` is that of the last
    copy; None where no note tells. `run` made the last switch, at `switched`.
    """

    entry: RegistryEntry | None = None
    contradiction: str | None = None
    remedy: str | None = None
    lagging: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    embedding: Embedding | None = None
    run: str = ""
    switched: datetime | None = None
    noted: Mapping[str, str] = field(default_factory=dict)
    """Names of places in the spec by the names that the note's writer has for them."""
    claims: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict)

    def error(self, database: str) -> PlanRefused:
        return PlanRefused(f'database "{database}": {self.contradiction}', hint=self.remedy)

    def with_claims(self, claims: Mapping[str, tuple[Claim, ...]]) -> Located:
        return replace(self, claims=claims)

    def claimed(self, place: str, slots: frozenset[Slot], *, serving: bool = False) -> str | None:
        """Who else is served from a place, or keeps a copy there, in words; `serving`: only the former."""
        for claim in self.claims.get(place, ()):
            words = claim.describe(slots)
            if words is not None and (claim.serving & slots or not serving):
                return words
        return None

    def at(self, addresses: Mapping[str, Mapping[str, object]]) -> Located:
        """The entry in this spec's words: its names for the places that told, and the addresses that led to them."""
        if self.entry is None or self.contradiction is not None:
            return self

        def named(name: str | None, config: Config) -> tuple[str | None, Config]:
            here = self.noted.get(name or "", name)
            return here, (dict(addresses[here]) or None) if here is not None and here in addresses else config

        entry = self.entry
        backend, config = named(entry.backend, entry.backend_config)
        slots = entry.slots and {slot: _placed(named, place) for slot, place in entry.slots.items()}
        kept = tuple(_kept(named, each) for each in entry.kept)
        update = {"backend": backend, "backend_config": config, "slots": slots, "kept": kept}
        return replace(self, entry=entry.model_copy(update=update))


def _placed(named: Any, place: SlotEntry) -> SlotEntry:
    backend, config = named(place.backend, place.backend_config)
    return place.model_copy(update={"backend": backend, "backend_config": config})


def _kept(named: Any, kept: KeptEntry) -> KeptEntry:
    if kept.backend_type == JSON:
        return kept
    backend, config = named(kept.backend, kept.backend_config)
    return kept.model_copy(update={"backend": backend, "backend_config": config})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found of one database. `own`: its note in each place that has one; `registry`: the state folder's entry.

    `backends` are the places that the spec knows, `unknown` those that could not be asked. `path` is its folder, and
    `has_files` whether LightRAG's files lie there.
    """

    own: Mapping[str, Placement]
    unknown: Mapping[str, str]
    backends: set[str]
    registry: RegistryEntry | None
    path: str
    has_files: bool


def settle(database: str, seen: Seen) -> Located:
    """The newest revision that the places which serve confirm by notes of their own.

    A switch counts once the last place that serves has its note; one that was cut off before that did not happen. What was
    noted everywhere, and is missing now in a place that serves, is a contradiction: the place was emptied, or restored.
    """
    known = seen.registry
    entries = sorted(
        {note.revision: note.entry for note in seen.own.values()}.items(), key=lambda pair: -pair[0]
    )
    if known is not None and known.revision > (entries[0][0] if entries else 0):
        entries.insert(0, (known.revision, known))
    if not entries:
        return Located(entry=known, unknown=seen.unknown)
    if (words := _forked(seen)) is not None:
        return Located(
            entry=entries[0][1], contradiction=words, remedy=_adopt(database), unknown=seen.unknown
        )
    for index, (revision, entry) in enumerate(entries):
        missing = [place for place in _serving(entry, seen, revision) if not _confirms(place, seen, revision)]
        if not missing:
            return _found(database, seen, revision, entry)
        if index + 1 < len(entries) and _cut_off(seen, revision, entry):
            continue
        return Located(
            entry=entry,
            contradiction=_unconfirmed(entry, missing, seen, revision),
            remedy=f"restore {_shown(missing[0])} from a backup made after that; or say what serves now: {_adopt(database)}",
            unknown=seen.unknown,
        )
    return Located(entry=known, unknown=seen.unknown)


def _found(database: str, seen: Seen, revision: int, entry: RegistryEntry) -> Located:
    noted = _names(seen, revision)
    telling = next((note for note in seen.own.values() if note.revision == revision), None)
    serving = _serving(entry, seen, revision)
    if JSON in seen.own or JSON in serving:
        entry = entry.model_copy(update={"path": seen.path})
    elif seen.has_files and seen.registry is None and entry.path != seen.path:
        return Located(
            entry=entry,
            contradiction=f'"{serving[0]}" serves a database of this name, which came from the folder "{entry.path}"; '
            f'but the folder "{seen.path}" holds files that have no note of it',
            remedy=f"if they are the same database: {_adopt(database)}; if not, set databases.{database}.workspace to a "
            "free name, or move the files away",
            unknown=seen.unknown,
        )
    known = seen.registry
    if known is not None and known is not entry:  # what only the state folder says of it stays
        fields = {name: getattr(entry, name) for name in type(entry).model_fields if name in _NOTED}
        entry = known.model_copy(update=fields)
    lagging = tuple(place for place, note in seen.own.items() if note.revision < revision)
    return Located(
        entry=entry,
        lagging=lagging,
        unknown=seen.unknown,
        noted=noted,
        embedding=telling.space if telling else None,
        run=telling.run if telling else "",
        switched=telling.at if telling else None,
    )


_NOTED = ("backend", "backend_type", "backend_config", "slots", "kept", "revision", "path")


def _names(seen: Seen, revision: int) -> dict[str, str]:
    """Names of places in this spec by the writer's; of several entries that lead to one place the same name counts."""
    found: dict[str, str] = {}
    for place, note in seen.own.items():
        if note.revision == revision and (note.here not in found or place == note.here):
            found[note.here] = place
    return found


def _serving(entry: RegistryEntry, seen: Seen, revision: int) -> list[str]:
    """The places that serve by an entry, as facts of this spec name them."""
    noted = _names(seen, revision)
    places: list[RegistryEntry | SlotEntry] = [*(entry.slots or {}).values()] or [entry]
    names = [JSON if place.backend_type == JSON else str(place.backend) for place in places]
    return list(dict.fromkeys(noted.get(name, name) for name in names))


def _confirms(place: str, seen: Seen, revision: int) -> bool:
    """Whether a place says itself that it serves; one that cannot be asked, or is not in the spec, says nothing against it."""
    if place in seen.unknown or place not in seen.backends or revision == 0:
        return True
    return place in seen.own and seen.own[place].revision >= revision


def _cut_off(seen: Seen, revision: int, entry: RegistryEntry) -> bool:
    """Whether the change to a revision was broken off before it counted: places that it leaves do not have it yet."""
    if seen.registry is not None and seen.registry.revision >= revision:
        return False
    serving = _serving(entry, seen, revision)
    return not any(note.revision >= revision for place, note in seen.own.items() if place not in serving)


def _forked(seen: Seen) -> str | None:
    """In words that two runs made the same revision; they saw different worlds."""
    newest = max((note.revision for note in seen.own.values()), default=0)
    runs = {note.run: place for place, note in seen.own.items() if note.revision == newest}
    if len(runs) < 2:
        return None
    first, second = list(runs.values())[:2]
    return f"{_shown(first)} and {_shown(second)} were switched by different runs that did not know of each other"


def _unconfirmed(entry: RegistryEntry, missing: list[str], seen: Seen, revision: int) -> str:
    since = next(
        (f" since {note.at:%Y-%m-%d %H:%M}Z" for note in seen.own.values() if note.revision == revision), ""
    )
    place = missing[0]
    if place == JSON:
        return f'it is served by JSON files{since}, in the folder "{entry.path}", and the folder "{seen.path}" has no note of that'
    older = seen.own.get(place)
    state = (
        "does not know of it: it was emptied, replaced or restored"
        if older is None
        else f"is older than that (as of {older.at:%Y-%m-%d %H:%M}Z): it was restored from a backup"
    )
    return f"it is served by {_shown(place)}{since}, which {state}"


def _shown(place: str) -> str:
    return "the JSON files" if place == JSON else f'backend "{place}"'


def _adopt(database: str) -> str:
    return f"hybridrag adopt {database} --serving BACKEND"
