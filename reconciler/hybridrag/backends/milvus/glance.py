"""A cheap look at workspaces of one server: its own counters and our marks. No row is read, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence

from hybridrag.model.findings import Glance
from hybridrag.model.selection import Embedding
from hybridrag.model.vectors import Elsewhere, suffix_in

from .client import Connection, Endpoint, connection
from .collections import collection_names, foreign, stream_of
from .ledger import Ledger
from .observe import dimensions


async def glance_stores(endpoint: Endpoint, places: Sequence[tuple[str, Embedding]]) -> list[Glance]:
    """One glance for each (workspace, embedding), in this order. Raises BackendUnavailable, PlanRefused."""
    async with connection(endpoint) as opened:
        existing = set(await opened.call("list_collections"))
        return [await _glance(opened, existing, *place) for place in places]


async def _glance(opened: Connection, existing: set[str], workspace: str, embedding: Embedding) -> Glance:
    names = collection_names(workspace, embedding)
    present = {namespace: name for namespace, name in names.items() if name in existing}
    records: dict[str, int | None] = dict.fromkeys(names, 0)
    estimated = set()
    for namespace, name in present.items():
        records[namespace] = await opened.count(name)
        if not await opened.loaded(name):
            estimated.add(namespace)  # what was last sealed, deleted rows among them
    mark = await Ledger(opened, workspace).mark()
    return Glance(
        records=records,
        estimated=frozenset(estimated),
        problem=None if len(present) == len(names) else "LightRAG's collections are missing",
        state=mark.state.value if mark else None,
        copied=sum(mark.records.values()) if mark else 0,
        elsewhere=tuple(await _elsewhere(opened, existing, workspace, present, set(names.values()))),
        dims=frozenset([await dimensions(opened, name) for name in present.values()]),
    )


async def _elsewhere(
    opened: Connection, existing: set[str], workspace: str, present: dict[str, str], own: set[str]
) -> list[Elsewhere]:
    """Collections of other models that hold rows. Whether their ids are among our own, only reading them would tell."""
    found = []
    for name in foreign(existing, workspace, own):
        rows, told = await opened.count(name), stream_of(name, workspace)
        if rows and told is not None:
            namespace, rest = told
            apart = 0 if namespace in present else rows
            found.append(
                Elsewhere(namespace=namespace, place=name, rows=rows, apart=apart, suffix=suffix_in(rest))
            )
    return found
