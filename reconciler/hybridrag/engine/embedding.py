"""Which embedding a database's places and settings show, for everything that would use it: looked at, never written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hybridrag.errors import BackendUnavailable, HybridragError, PlanRefused
from hybridrag.model.data import Slot
from hybridrag.model.facts import Facts
from hybridrag.model.findings import Glance
from hybridrag.model.selection import Told, plain_model
from hybridrag.model.services import Telling
from hybridrag.model.wanted import Wanted
from hybridrag.planner import JSON
from hybridrag.planner.embedding import Serving, as_details, refuse_strangers, words_of

from .world import World

PATIENCE_S = 20.0


async def observe_settings(world: World, item: Wanted) -> Facts:
    """What settings files and a running writer say, as details of an observation."""
    read, halter = world.settings.get(item.database), world.halters.get(item.database)
    told: list[Told] = list(await asyncio.to_thread(read)) if read else []
    if isinstance(halter, Telling) and (said := await halter.embedding()) is not None:
        told.append(said)
    return as_details(told)


def seen_at(backend: str, glances: Iterable[tuple[frozenset[Slot], Glance]]) -> Serving:
    """What glances tell of a database; `backend` holds its vectors."""
    found = list(glances)
    records = {name: count for _, glance in found for name, count in glance.records.items()}
    return Serving(
        backend,
        records,
        [each for slots, glance in found if Slot.VECTOR in slots for each in glance.elsewhere],
    )


async def look(world: World, item: Wanted) -> tuple[Serving, frozenset[int]]:
    """(what serves a database, the dimensions of its vectors), cheaply. Raises BackendUnavailable."""
    serving = world.serving(item)
    glances = []
    for backend in dict.fromkeys(serving.values()):
        slots = frozenset(slot for slot in Slot if serving[slot] is backend)
        store = backend.store(item.path, item.workspace, item.embedding, slots)
        try:
            (glance,) = await asyncio.wait_for(store.glance(), PATIENCE_S)
        except asyncio.TimeoutError:
            raise BackendUnavailable(
                f'backend "{backend.name}" did not answer within {PATIENCE_S:.0f} s', hint="hybridrag health"
            ) from None
        glances.append((slots, glance))
    dims = frozenset(dim for _, glance in glances for dim in glance.dims)
    return seen_at(serving[Slot.VECTOR].name, glances), dims


async def refuse_other_embedding(world: World, item: Wanted) -> None:
    """Raises PlanRefused where what serves was embedded with another model, or another length, than the spec says.

    LightRAG would find nothing there and write beside it.
    """
    serving, dims = await look(world, item)
    refuse_strangers(item, serving)
    if apart := sorted(dims - {item.embedding.dim}):
        raise PlanRefused(
            f'database "{item.database}": its vectors in backend "{serving.backend}" have {apart[0]:,} dimensions, the spec '
            f"says embedding {words_of(item.embedding)}",
            hint=f"set databases.{item.database}.embedding.dim to {apart[0]} (another model would need re-embedding)",
        )


def refuse_function(world: World, item: Wanted, function: object) -> None:
    """Raises PlanRefused where a LightRAG EmbeddingFunc names another model, or another length, than the spec.

    On a server, one that names no model is another as well: LightRAG would take places without a name.
    """
    dim, model = getattr(function, "embedding_dim", None), getattr(function, "model_name", None)
    if dim is None:
        return  # a plain function, which is wrapped in what the spec says
    named = isinstance(model, str) and bool(model.strip())
    decides = world.serving(item)[Slot.VECTOR].type != JSON or (named and item.embedding.model)
    same = plain_model(model if named else None) == plain_model(item.embedding.model)
    if dim == item.embedding.dim and (same or not decides):
        return
    told = f'model "{model}"' if named else "no model"
    raise PlanRefused(
        f'database "{item.database}": embedding_func is {told} with {dim:,} dimensions, its vectors are embedded with '
        f"{words_of(item.embedding)}",
        hint="give EmbeddingFunc(embedding_dim=…, model_name=…) as the spec says, or a plain function; another model would "
        "need re-embedding",
    )


async def settled(world: World, item: Wanted) -> HybridragError | None:
    """The same as `refuse_other_embedding` as a value; None also where it cannot be looked at."""
    try:
        await refuse_other_embedding(world, item)
    except PlanRefused as error:
        return error
    except (HybridragError, OSError):
        return None
    return None
