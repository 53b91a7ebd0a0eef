"""What a Milvus server and the vectors of a LightRAG database in it are right now. Nothing is written or loaded."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.model.address import place_facts
from hybridrag.model.facts import Facts, Value
from hybridrag.model.selection import Embedding
from hybridrag.model.vectors import Elsewhere, as_facts, suffix_in

from .client import Connection, Endpoint, connection, quoted
from .collections import collection_names, foreign, left_over, stream_of
from .ledger import Ledger
from .reader import fingerprint
from .whereabouts import addresses_in

OBSERVE_TIMEOUT_S = 20.0
DIMENSIONS = (2, 32768)
PAGE = 500
"""Ids that are asked for at once."""


async def observe_server(endpoint: Endpoint) -> tuple[Facts, Facts]:
    """(facts, details) of a server; an unreachable one is a fact, not an error."""
    try:
        return await asyncio.wait_for(_observe_server(endpoint), OBSERVE_TIMEOUT_S)
    except HybridragError as error:  # also a missing package, or a secret that cannot be resolved
        return {"type": "milvus", "reachable": False, "problem": error.what, "hint": error.hint}, {}
    except asyncio.TimeoutError:
        problem = f'backend "{endpoint.name}" (milvus at {endpoint.uri}) did not answer within {OBSERVE_TIMEOUT_S:.0f} s'
        return {"type": "milvus", "reachable": False, "problem": problem, "hint": None}, {}


async def _observe_server(endpoint: Endpoint) -> tuple[Facts, Facts]:
    async with connection(endpoint) as opened:
        started = time.perf_counter()
        version = await opened.call("get_server_version")
        latency = time.perf_counter() - started
        await opened.call("list_collections")  # here a missing database shows
    return {"type": "milvus", "reachable": True, "version": str(version)}, {
        "latency_ms": round(latency * 1000, 1)
    }


def problems(name: str, facts: Facts, embedding: Embedding) -> list[HybridragError]:
    """Why a server, as observed, cannot take LightRAG's vectors. Pure."""
    if not facts.get("reachable"):
        hint = facts.get("hint")
        return [BackendUnavailable(str(facts.get("problem")), hint=str(hint) if hint else None)]
    least, most = DIMENSIONS
    if least <= embedding.dim <= most:
        return []
    return [
        BackendUnavailable(
            f'backend "{name}": Milvus holds vectors of {least} to {most:,} dimensions, the database has {embedding.dim:,}',
            hint="keep the vectors of this database on another backend",
        )
    ]


async def observe_store(endpoint: Endpoint, workspace: str, embedding: Embedding) -> tuple[Facts, Facts]:
    """(facts, details) of one workspace: records by namespace, our marks. Raises BackendUnavailable, PlanRefused."""
    names = collection_names(workspace, embedding)
    async with connection(endpoint) as opened:
        existing = set(await opened.call("list_collections"))
        present = {namespace: name for namespace, name in names.items() if name in existing}
        facts: dict[str, Value] = {"exists": bool(present), "schema": len(present) == len(names)}
        details: dict[str, Value] = {}
        if not present:
            facts["missing"] = f'backend "{endpoint.name}" has no collection {names["chunks"]}'
        total = 0
        for namespace, name in names.items():
            facts[f"records/{namespace}"] = 0
            facts[f"neighbours/{namespace}"] = False  # every workspace has collections of its own
            if namespace not in present:
                if present:
                    facts[f"damaged/{name}"] = "the collection does not exist, the others do"
                continue
            count = await opened.count(name)
            dim = await dimensions(opened, name)
            facts[f"records/{namespace}"] = count
            facts[f"dim/{name}"] = dim
            facts[f"loaded/{name}"] = await opened.loaded(name)
            total += count * dim * 4
        facts["bytes"] = total  # of vectors: the server does not tell what texts take
        others = await holding(opened, existing, workspace, names)
        facts["foreign_vectors"] = ", ".join(others) or None
        facts.update(as_facts(await _elsewhere(opened, workspace, others, present)))
        facts["unfinished_writes"] = ", ".join(left_over(existing, names.values())) or None
        facts["fingerprint"] = await fingerprint(opened, present) if present else None
        facts.update(place_facts(await addresses_in(opened, endpoint, workspace, existing)))
        mark = await Ledger(opened, workspace).mark()
        facts["migration"] = mark.migration if mark else None
        facts["state"] = mark.state.value if mark else None
        facts["source_fingerprint"] = mark.source_fingerprint if mark else None
        if mark:
            details["checkpoint_records"] = sum(mark.records.values())
    return facts, details


async def holding(opened: Connection, existing: set[str], workspace: str, names: dict[str, str]) -> list[str]:
    """Other collections of the workspace that hold rows."""
    others = foreign(existing, workspace, names.values())
    return [name for name in others if await opened.count(name)]


async def _elsewhere(
    opened: Connection, workspace: str, holding: list[str], present: dict[str, str]
) -> list[Elsewhere]:
    """What collections of other models hold of a workspace. `present`: those of our own that exist, by stream."""
    found = []
    for name in holding:
        if (told := stream_of(name, workspace)) is None:
            continue
        namespace, rest = told
        rows, own = await opened.count(name), present.get(namespace)
        both = own is not None and await opened.loaded(own) and await opened.loaded(name)
        # Ids can be asked of loaded collections only. What nobody loaded, nobody works with.
        apart = await _apart(opened, name, own) if both and own is not None else 0 if own else rows
        found.append(
            Elsewhere(namespace=namespace, place=name, rows=rows, apart=apart, suffix=suffix_in(rest))
        )
    return found


async def _apart(opened: Connection, name: str, own: str) -> int:
    """Rows of one collection whose ids are not in the other."""
    found, last = 0, ""
    while rows := await opened.query(name, f"id > {quoted(last)}" if last else 'id != ""', ["id"], PAGE):
        ids = [str(row["id"]) for row in rows]
        last = ids[-1]
        known = await opened.query(own, f"id in [{', '.join(map(quoted, ids))}]", ["id"], PAGE)
        found += len(set(ids) - {str(row["id"]) for row in known})
    return found


async def dimensions(opened: Connection, name: str) -> int:
    """How long the vectors of a collection are."""
    described: dict[str, Any] = await opened.call("describe_collection", name)
    return next(
        (int(column["params"]["dim"]) for column in described["fields"] if column["name"] == "vector"), 0
    )
