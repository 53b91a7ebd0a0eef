"""Verify on demand: compare a database's JSON files with the backend it is on, or is wanted on. Read-only."""

from __future__ import annotations

from hybridrag.actions import STREAMS
from hybridrag.errors import BackendUnavailable, NotFound
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import Report, compare, examine_source
from hybridrag.model.events import Emit
from hybridrag.model.ports import Examination

from .world import World


async def verify_database(world: World, name: str, emit: Emit) -> tuple[Report, Examination]:
    """Both passes, in constant memory. Raises NotFound without a source, BackendUnavailable without a target."""
    item = world.database(name)
    source = world.source_store(item)
    facts, _ = await source.observe()
    if not facts.get("exists"):
        raise NotFound(
            f'database "{name}": {facts.get("missing")}',
            hint="without the JSON files there is nothing to compare with",
        )
    backend = world.backend(item.backend)
    if backend.type == "json":
        raise NotFound(
            f'database "{name}" lives in its JSON files; there is no other backend to compare with',
            hint=f"set databases.{name}.backend in the spec, then run hybridrag plan",
        )
    server, _ = await backend.observe()
    if not server.get("reachable"):
        raise BackendUnavailable(str(server.get("problem")), hint=str(server.get("hint") or "") or None)
    total = sum(
        value for key, value in facts.items() if key.startswith("records/") and isinstance(value, int)
    )
    target = world.store(item, item.backend)
    target_facts, _ = await target.observe()
    if not target_facts.get("schema"):
        raise NotFound(
            f'backend "{item.backend}" does not hold database "{name}" yet (LightRAG\'s tables are missing)',
            hint="hybridrag apply",
        )
    step = f"verify.{name}"
    reader = source.reader()
    examining = Meter(emit, step, "reading the source", total)
    expected, examination = await examine_source(reader, target, STREAMS, item.batch, examining)
    comparing = Meter(emit, step, "comparing", total)
    return await compare(reader, target, expected, item.batch, comparing), examination
