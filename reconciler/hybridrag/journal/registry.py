"""The registry: `registry.yaml`, the pointer that live consumers follow to a database's backend.

Read by watcher, `hybridrag query` and `hybridrag.open()`; written only under the lease, which cannot change hands
meanwhile, atomically, and never with a secret.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from hybridrag.errors import SpecInvalid
from hybridrag.failpoints import Point, failpoint
from hybridrag.model.data import Slot
from hybridrag.model.fence import guard
from hybridrag.model.strict import Strict
from hybridrag.model.whole_file import read_at_most

from .registry_text import Misread, parse
from .state_file import unwritable

_LARGEST = 8 << 20


def _in_utc(moment: datetime) -> datetime:
    """One that was written by hand may name no zone."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


class SlotEntry(Strict):
    """Where one slot of a database lives, when its slots do not live together."""

    backend: str
    backend_type: str
    backend_config: dict[str, Any] | None = None


class KeptEntry(Strict):
    """A backend that served some slots before and still holds the data as it was then.

    `backend_config` is where it lay then. `fingerprint` of the data when it was left, None where it is not known.
    `left_behind`: it holds records that did not come along. `retiring`: its deletion has begun.
    """

    backend: str
    backend_type: str
    slots: tuple[Slot, ...]
    since: Annotated[datetime, AfterValidator(_in_utc)]
    backend_config: dict[str, Any] | None = None
    fingerprint: str | None = None
    left_behind: bool = False
    retiring: bool = False

    @property
    def name(self) -> str:
        """As facts name it: JSON files are one place."""
        return "json" if self.backend_type == "json" else self.backend


class RegistryEntry(Strict):
    """One database: where it lives now. Keys we do not know (written by others) are kept.

    `backend` when one holds all four slots; otherwise it is null and `slots` says where each of them is. `revision`
    counts the changes of what serves or is kept; 0 in a file of an earlier version, or where no place has a note of it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    path: str
    source_folder: str | None = None
    source_type: str = "filesystem"
    auto_watch: bool = False
    watch_interval: int = 300
    backend: str | None = None
    backend_type: str = "json"
    backend_config: dict[str, Any] | None = None
    slots: dict[Slot, SlotEntry] | None = None
    kept: tuple[KeptEntry, ...] = ()
    revision: int = Field(default=0, ge=0)


class RegistryFile(Strict):
    """The whole file."""

    model_config = ConfigDict(extra="allow", frozen=True)

    version: Literal[1] = 1
    databases: dict[str, RegistryEntry] = Field(default_factory=dict)


class Registry:
    """The registry of one environment; a missing file is an empty registry."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> RegistryFile:
        """Raises SpecInvalid when the file cannot be understood; nothing is changed then."""
        try:
            raw = read_at_most(self.path, _LARGEST + 1)
        except FileNotFoundError:
            if self.path.is_symlink():
                raise self._invalid("it is a link that leads nowhere") from None
            return RegistryFile()
        except OSError as error:
            raise self._invalid(f"it cannot be read: {error.strerror}") from None
        if len(raw) > _LARGEST:
            raise self._invalid("it is larger than 8 MiB")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise self._invalid("it is not UTF-8 text", f":{line}") from None
        try:
            data = parse(text)
        except Misread as error:
            raise self._invalid(
                f"it is not YAML that can be read: {error.why}", f":{error.line}:{error.column}"
            ) from None
        try:
            return RegistryFile.model_validate(data if data is not None else {})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the top level"
            raise self._invalid(f"{place}: {first['msg']}") from None

    def _invalid(self, why: str, line: str = "") -> SpecInvalid:
        return SpecInvalid(
            f'the registry "{self.path.name}" cannot be used: {why}',
            where=f"{self.path}{line}",
            hint="restore it from your backup, or move it away: hybridrag plan then says what it can observe",
        )

    def put(self, entry: RegistryEntry) -> None:
        """Write one entry, keeping the others; the old file stays whole until the new one is on disk."""
        with self.drafted(entry) as publish:
            publish()

    @contextlib.contextmanager
    def drafted(self, entry: RegistryEntry) -> Iterator[Callable[[], None]]:
        """One entry, and the others, on disk but not in place yet: a full disk is noticed before anything else is changed.

        What is yielded puts it in place; left without that, nothing was changed.
        """
        with guard():
            current = self._whole()
            merged = {**_plain(current), "version": 1}
            merged["databases"] = {**merged.get("databases", {}), entry.name: _tidy(entry)}
            draft = self._draft(merged)
        try:
            yield lambda: self._publish(draft)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Forget one entry, keeping the others; nothing is written when there is none."""
        with guard():
            merged = _plain(self._whole())
            draft = None if merged["databases"].pop(name, None) is None else self._draft(merged)
        if draft is not None:
            self._publish(draft)

    def _whole(self) -> RegistryFile:
        """What is written again beside an entry that changes."""
        return self.read()

    def _draft(self, merged: dict[str, Any]) -> Path:
        text = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)
        draft = self.path.with_name(f".{self.path.name}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                file.write(
                    "# Written by hybridrag apply; read by everything that uses these databases.\n" + text
                )
                file.flush()
                os.fsync(file.fileno())
            failpoint(Point.REGISTRY_BEFORE)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise unwritable("registry", self.path, error) from error
        return draft

    def _publish(self, draft: Path) -> None:
        try:
            with guard():
                draft.replace(self.path)
                failpoint(Point.REGISTRY_AFTER)
                folder = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            raise unwritable("registry", self.path, error) from error


def _plain(file: RegistryFile) -> dict[str, Any]:
    known = file.model_dump()  # as Python values: a date that somebody wrote stays a date
    return {**known, "databases": {name: _tidy(entry) for name, entry in file.databases.items()}}


def _tidy(entry: RegistryEntry) -> dict[str, Any]:
    """As YAML values, without what says nothing."""
    found = entry.model_dump()
    found["kept"] = [
        {
            name: value
            for name, value in {**kept, "slots": [slot.value for slot in kept["slots"]]}.items()
            if value
        }
        for kept in found["kept"]
    ]
    if entry.slots is not None:
        found["slots"] = {slot.value: place.model_dump() for slot, place in entry.slots.items()}
    return {key: value for key, value in found.items() if value or key not in ("slots", "kept", "revision")}


def facts_of(entry: RegistryEntry | None) -> Mapping[str, str | int | float | bool | None]:
    """A registry entry as flat facts."""
    if entry is None:
        return {"backend": None}
    config = {
        f"config/{name}": _simple(value) for name, value in sorted((entry.backend_config or {}).items())
    }
    facts: dict[str, str | int | float | bool | None] = {
        "backend": entry.backend,
        "backend_type": entry.backend_type,
        "path": entry.path,
        **config,
    }
    for slot, place in (entry.slots or {}).items():
        facts[f"slot/{slot.value}"] = place.backend
        facts[f"slot_type/{slot.value}"] = place.backend_type
        facts |= {f"config/{slot.value}/{k}": _simple(v) for k, v in (place.backend_config or {}).items()}
    for kept in sorted(entry.kept, key=lambda kept: kept.since):
        facts[f"kept/{kept.name}"] = kept.since.isoformat()
        slots = "+".join(slot.value for slot in Slot if slot in kept.slots)
        facts[f"kept_state/{kept.name}/{slots}"] = kept.fingerprint
        if kept.left_behind:
            facts[f"left_behind/{kept.name}"] = True
    return facts


def _simple(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, (str, int, float)):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
