"""`--backend NAME` and `--to NAME`: an entry of the spec, or a type, or a new entry for a connection string."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hybridrag.backends import SPECS
from hybridrag.errors import PlanRefused, SpecInvalid
from hybridrag.model.data import Slot
from hybridrag.model.ports import Backend
from hybridrag.spec import LoadedSpec

_OTHER_NAMES = {"postgresql": "postgres"}
_FIRST_NAMES = {"json": "files", "postgres": "pg"}


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend by name. `type` is set when its entry has yet to be added."""

    name: str
    type: str | None = None


def choose(spec: LoadedSpec, wanted: str, *, connecting: bool) -> Choice:
    """What the option means in this spec; `connecting`: a connection string came with it. Raises SpecInvalid."""
    entries = {name: str(getattr(entry, "type", "")) for name, entry in spec.environment.backends.items()}
    if wanted in entries:
        if connecting:
            raise SpecInvalid(
                f'backend "{wanted}" is declared in the spec already, so it takes no --connection-string',
                hint="leave it out, or add another backend: --backend postgres --connection-string …",
            )
        return Choice(wanted)
    kind = _type_named(wanted)
    if connecting:
        if kind not in (None, "postgres"):
            raise SpecInvalid(
                f'a --connection-string leads to Postgres, and "{wanted}" is another type',
                hint="leave it out",
            )
        name = wanted if kind is None else _free(_FIRST_NAMES["postgres"], entries)
        return Choice(name, "postgres")
    known = ", ".join(f"{name} ({of})" for name, of in sorted(entries.items())) or "none"
    if kind is None:
        raise SpecInvalid(
            f'"{wanted}" is neither a backend of the spec nor a type of one (there are: {known})',
            hint=f"name one of them, or: {', '.join(SPECS)}",
        )
    matching = [name for name, of in entries.items() if of == kind]
    if len(matching) == 1:
        return Choice(matching[0])
    if matching:
        raise SpecInvalid(
            f'"{wanted}" may mean {" or ".join(matching)}', hint="say which one, by its name in the spec"
        )
    if kind == "json":
        return Choice(_free(_FIRST_NAMES["json"], entries), "json")
    raise SpecInvalid(
        f'the spec has no backend of type "{kind}" (there are: {known})',
        hint="give --connection-string, or run hybridrag backend setup-docker, or declare an embedded one in the spec"
        if kind == "postgres"
        else f"declare one below backends: {kind}: {{type: {kind}, …}}",
    )


def _type_named(text: str) -> str | None:
    """The engine that a word names; None where it names none."""
    kind = _OTHER_NAMES.get(text.lower(), text.lower())
    return kind if kind in SPECS else None


def refuse_whole(name: str, backend: Backend, database: str) -> None:
    """Raises PlanRefused where a backend cannot hold a new database alone."""
    if lacking := [slot.value for slot in Slot if slot not in backend.serves]:
        held = ", ".join(slot.value for slot in Slot if slot in backend.serves)
        raise PlanRefused(
            f'backend "{name}" ({backend.type}) cannot hold a database alone: it has no place for the '
            f"{' and '.join(lacking)} slot{'s' if len(lacking) > 1 else ''}",
            hint=f"create it on another backend; then hybridrag migrate {database} --to {name} moves its {held} slot there",
        )


def placed_on(name: str, backend: Backend, now: Mapping[Slot, str]) -> str | dict[str, str]:
    """Where a database belongs once it is moved to a backend: all of it, or the slots that the backend can hold."""
    placed = {slot.value: name if slot in backend.serves else now[slot] for slot in Slot}
    return name if set(placed.values()) == {name} else placed


def _free(name: str, taken: dict[str, str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}{number}", number + 1
    return free


def model_entry(spec: LoadedSpec, choice: Choice, named: str | None, *, none: bool) -> dict[str, str | None]:
    """`embedding.model` of the new entry. Raises SpecInvalid where it must be said and is not."""
    from hybridrag.backends import NAMED_AFTER_MODEL

    if named and none:
        raise SpecInvalid(
            "--embedding-model and --no-embedding-model exclude each other", hint="leave one out"
        )
    if named or none:
        return {"model": named or None}
    declared = spec.environment.backends.get(choice.name)
    kind = choice.type or str(getattr(declared, "type", ""))
    if kind not in NAMED_AFTER_MODEL:
        return {}
    raise SpecInvalid(
        f'the embedding model is not named, and LightRAG names its {NAMED_AFTER_MODEL[kind]} in "{choice.name}" after it',
        hint="give --embedding-model M as LightRAG is told it (EMBEDDING_MODEL), or --no-embedding-model where it is told none",
    )
