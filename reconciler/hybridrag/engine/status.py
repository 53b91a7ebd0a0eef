"""Status: what each database uses now, its size and health, and the last run. Read-only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hybridrag.journal import RunRecord, last_run, open_pauses
from hybridrag.model.data import NAMESPACES
from hybridrag.model.facts import Facts

from .observing import observe
from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatus:
    """One database. `health` is healthy, degraded or error; `size` is in bytes, None where it is not known."""

    database: str
    backend: str
    backend_type: str
    wanted: str
    health: str
    problem: str | None
    records: dict[str, int]
    size: int | None
    migration: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """One backend that is used or wanted."""

    name: str
    type: str
    facts: Facts
    details: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    environment: str
    databases: tuple[DatabaseStatus, ...]
    backends: tuple[BackendStatus, ...]
    last_run: RunRecord | None
    paused: tuple[str, ...] = field(default=())


async def status(world: World, names: Iterable[str] = ()) -> Status:
    """Look at everything; nothing that is broken hides the rest."""
    items = world.chosen(names)
    observation = (await observe(world, items)).observation
    databases = []
    for item in items:
        entry = observation.of(f"registry/{item.database}")
        named = entry.get("backend")
        serving = str(named) if named else world.files.name
        kind = str(entry.get("backend_type") or "json")
        thing = f"store/{item.database}@{'json' if kind == 'json' else serving}"
        facts = observation.of(thing)
        server = observation.of(f"backend/{serving}")
        problem = _problem(facts, server, kind)
        target = observation.of(f"store/{item.database}@{item.places[0].name}")
        size = facts.get("bytes")
        databases.append(
            DatabaseStatus(
                database=item.database,
                backend=serving,
                backend_type=kind,
                wanted=", ".join(place.name for place in item.places),
                health="error" if problem else "healthy",
                problem=problem,
                records={n.name: _int(facts, n.name) for n in NAMESPACES},
                size=size if isinstance(size, int) else None,
                migration=str(target["state"]) if target.get("state") else None,
            )
        )
    backends = tuple(
        BackendStatus(
            name=thing.partition("/")[2],
            type=str(facts.get("type")),
            facts=facts,
            details=observation.detail(thing),
        )
        for thing, facts in sorted(observation.facts.items())
        if thing.startswith("backend/")
    )
    return Status(
        environment=world.environment,
        databases=tuple(databases),
        backends=backends,
        last_run=last_run(world.journal_path),
        paused=tuple(open_pauses(world.journal_path)),
    )


def _problem(facts: Facts, server: Facts, kind: str) -> str | None:
    if kind != "json" and not server.get("reachable"):
        return str(server.get("problem") or "its backend is not in the spec")
    for name, value in facts.items():
        if name.startswith("damaged/"):
            return f"{name[8:]}: {value}"
    if not facts.get("exists", True) or facts.get("problem"):
        return str(facts.get("missing") or facts.get("problem"))
    return None


def _int(facts: Facts, namespace: str) -> int:
    value = facts.get(f"records/{namespace}")
    return value if isinstance(value, int) else 0
