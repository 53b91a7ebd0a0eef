"""Who still writes to what a database left: files that changed after the switch, by a LightRAG that nobody told. Read-only."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from pathlib import Path

from hybridrag.errors import HybridragError
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON

from .kept import Kept, kept_of
from .world import World, served_by


async def late_writes(world: World, item: Wanted) -> tuple[str, ...]:
    """In words, for each set of kept files that is not as it was left. Copies in servers are compared by `verify` alone."""
    found = []
    for kept in kept_of(world.registry, item):
        if kept.name != JSON or kept.retiring or kept.elsewhere is not None or kept.fingerprint is None:
            continue
        with contextlib.suppress(HybridragError, OSError):
            store = world.store(item, JSON, frozenset(kept.slots))
            if await store.reader().fingerprint() != kept.fingerprint:
                found.append(_words(world, item, kept))
    return tuple(found)


def _words(world: World, item: Wanted, kept: Kept) -> str:
    written = max((path.stat().st_mtime for path in _files(Path(item.path))), default=None)
    serving = served_by(world.serving(item))
    since = None if written is None else datetime.fromtimestamp(written, timezone.utc)
    if since is None or since < kept.since:
        return f'the files that "{item.database}" left in "{item.path}" are not as they were left; {serving} serves it'
    return (
        f'the files that "{item.database}" left in "{item.path}" were written on {since:%Y-%m-%d %H:%M}Z, after the switch: '
        f"somebody still writes there, and {serving}, which serves it, does not have that"
    )


def _files(folder: Path) -> list[Path]:
    patterns = ("kv_store_*.json", "vdb_*.json", "*.graphml")
    return [path for pattern in patterns for path in folder.glob(pattern)]


def settings_hint(database: str) -> str:
    """The next command: what the LightRAG that was forgotten must be told."""
    return f"hybridrag render {database} --as env shows the settings it needs now"
