"""The Python interface: `load`, `plan`, `apply`, `open`, `connect`; see `hybridrag.__init__`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridrag.adapters.lightrag_instance import build, claim_process, require_files, variables
from hybridrag.adapters.lightrag_models import Said, completer, embedder, message
from hybridrag.assembly import assemble
from hybridrag.engine import Planned, Run, RunReport, World, health, plan_world
from hybridrag.engine.embedding import refuse_function, refuse_other_embedding
from hybridrag.engine.locating import locate
from hybridrag.errors import BackendUnavailable
from hybridrag.model.events import Emit, Event
from hybridrag.model.plan import HazardKind
from hybridrag.model.wanted import Wanted
from hybridrag.model.watching import Models
from hybridrag.spec import LoadedSpec
from hybridrag.spec import load as load_spec


@dataclass(frozen=True, slots=True)
class Environment:
    """A loaded spec and the world assembled from it."""

    spec: LoadedSpec
    world: World


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` would do. `steps` is empty when nothing is to be done."""

    world: World
    planned: Planned

    @property
    def steps(self) -> Sequence[Any]:
        return self.planned.plan.steps


def load(path: str | Path = "hybridrag.yaml", *, overlays: Iterable[str | Path] = ()) -> Environment:
    """Load a spec and its overlays. Raises SpecInvalid with every problem at file:line:column."""
    spec = load_spec(Path(path), overlays=[Path(item) for item in overlays])
    return Environment(spec, assemble(spec))


async def plan(env: Environment, *, targets: Iterable[str] = ()) -> Plan:
    """Observe and plan; writes nothing."""
    return Plan(env.world, await plan_world(env.world, targets))


def _ignore(_: Event) -> None:
    """No listener."""


async def apply(plan: Plan, *, on_event: Emit = _ignore, allow: Iterable[str] = ()) -> RunReport:
    """Carry out a plan. Raises what the failing step raised; the old backend serves then."""
    hazards = [HazardKind(name) for name in allow]
    return await Run(plan.world, plan.planned, on_event, hazards).execute()


@contextlib.asynccontextmanager
async def open(env: Environment, name: str, **lightrag: Any) -> AsyncIterator[Any]:
    """A LightRAG instance on the backend that the registry names, initialised and finalised.

    `lightrag` are constructor arguments (`llm_model_func`, `embedding_func`, `tokenizer`, …). Without
    `embedding_func` the spec's `embedding.function` or `models.embedding` is used, without `llm_model_func` its
    `models.llm`. Raises SpecInvalid where a key of these is missing, NotFound or BackendUnavailable where
    LightRAG would begin an empty database or try for minutes, and PlanRefused for a second database of the
    same kind in one process, for an `embedding_func` of another model or dimension than the spec's, and where the
    database's vectors lie under another one.
    """
    world = env.world
    item = world.database(name)
    await locate(world, [item])
    world.refuse_mislaid(item, kept=False)
    for backend in dict.fromkeys(world.serving(item).values()):
        facts, _ = await backend.observe()
        if not facts.get("reachable"):
            hint = facts.get("hint")
            raise BackendUnavailable(str(facts.get("problem")), hint=str(hint) if hint else None)
    selection = world.selection(item)
    require_files(selection)
    refuse_function(world, item, lightrag.get("embedding_func"))
    await refuse_other_embedding(world, item)
    claim_process(selection)
    lightrag = {**_given_by(env, item, lightrag), **lightrag}
    async with variables(selection):
        rag = build(selection, item.embedding, **lightrag)
        await rag.initialize_storages()
    try:
        yield rag
    finally:
        await rag.finalize_storages()


def _given_by(env: Environment, item: Wanted, lightrag: Mapping[str, Any]) -> dict[str, Any]:
    """The functions that the spec names, of those that were not given."""
    models = env.world.models[item.database]
    told = message(
        Models(
            llm=None if "llm_model_func" in lightrag else models.llm,
            embedding=None if "embedding_func" in lightrag else models.embedding,
            function=None if "embedding_func" in lightrag else models.function,
        )
    )
    functions = {
        "llm_model_func": completer(told, Said()),
        "embedding_func": embedder(told, item.embedding, str(env.spec.base_dir), Said()),
    }
    return {name: function for name, function in functions.items() if function is not None}


class Backends:
    """Every backend of an environment at once."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def health(self) -> dict[str, Any]:
        """`{backend: {healthy, latency_ms, version, detail}, healthy}`; `latency_ms` is the time to connect and log in."""
        report: dict[str, Any] = {
            name: {
                "healthy": bool(facts.get("reachable")),
                "latency_ms": details.get("latency_ms"),
                "version": facts.get("version"),
                "detail": facts.get("problem"),
            }
            for name, (facts, details) in (await health(self._world)).items()
        }
        return {**report, "healthy": all(entry["healthy"] for entry in report.values())}


@contextlib.asynccontextmanager
async def connect(env: Environment) -> AsyncIterator[Backends]:
    """The environment's backends; connections live only as long as the calls that need them."""
    yield Backends(env.world)
