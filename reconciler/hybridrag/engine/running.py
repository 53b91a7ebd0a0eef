"""Run a plan: lease, journal, each step checked, done and checked again, brackets closed on failure."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hybridrag.actions import BY_VERB, ONE_PART, Context, Part, Standings
from hybridrag.actions.overwriting import refuse_without_consent
from hybridrag.errors import HybridragError, Interrupted, NotConverged, PlanRefused
from hybridrag.journal import Journal, Lease
from hybridrag.model.data import streams_of
from hybridrag.model.events import Emit, PlanReady, RunDone, StepDone, StepFailed, StepStarted, Warned
from hybridrag.model.facts import Observation
from hybridrag.model.plan import HazardKind, Move, Plan, Step
from hybridrag.model.ports import Backend
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.wanted import Wanted
from hybridrag.planner import store_thing

from .planning import Planned, plan_world
from .recording import ProgressRecorder, QuarantineTally, counts_of
from .reverting import Reverting
from .stopping import Stop
from .world import World, served_by


@dataclass(slots=True, kw_only=True)
class RunReport:
    """What a run did. `serving` maps each database of the plan to the backend that serves it now.

    `quarantined` counts, by database, the records that were kept aside; `paused` says for how many seconds its writer
    was stopped.
    """

    run: str
    outcome: str
    seconds: float
    steps: dict[str, str] = field(default_factory=dict)
    serving: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)


def run_id() -> str:
    """Sorts by time, and is unique."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"


def who() -> str:
    with contextlib.suppress(KeyError, OSError):
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return socket.gethostname()


_STOPPED = (asyncio.CancelledError, KeyboardInterrupt)


def words_of(error: BaseException) -> tuple[str, str]:
    """(code, message) for journal and events; the text of an error that is not ours may hold data."""
    if isinstance(error, HybridragError):
        return error.code, error.what
    if isinstance(error, _STOPPED):
        return "interrupted", "interrupted"
    return "error", f"unexpected error ({type(error).__name__})"


class Run:
    """One execution of one plan, under the lease."""

    def __init__(
        self,
        world: World,
        planned: Planned,
        emit: Emit,
        allowed: Iterable[HazardKind],
        stop: Stop | None = None,
    ) -> None:
        self._world = world
        self._stop = stop or Stop()
        self._plan: Plan = planned.plan
        self._observation: Observation = planned.observation
        self._emit = emit
        self._allowed = frozenset(allowed)
        self._items = {item.database: item for item in planned.items}
        self._standings = Standings()
        self._report = RunReport(run=run_id(), outcome="done", seconds=0.0)
        self._pointer = world.pointer.of_run(self._report.run)
        self._reverting = Reverting(world, emit, self._pointer)

    async def execute(self) -> RunReport:
        """Raises what the failing step raised, after closing the brackets and saying who serves."""
        started = time.monotonic()
        run = self._report.run
        with Journal(self._world.journal_path) as journal, Lease(journal, f"{who()} {run}") as lease:
            journal.begin_run(run, who(), self._plan.spec_digest, self._plan.observation_digest)
            for item in self._items.values():
                if counts := counts_of(self._observation, item.database):
                    journal.put_counts(item.path, counts)
            tally = QuarantineTally(ProgressRecorder(journal, run, self._items, self._emit))
            self._emit = self._stop.between_batches(tally)
            self._emit(
                PlanReady(
                    run=run,
                    steps=tuple(step.id for step in self._plan.steps),
                    databases=tuple(dict.fromkeys(move.database for move in self._plan.moves.values())),
                )
            )
            error: BaseException | None = None
            context: Context | None = None
            claims = contextlib.AsyncExitStack()
            try:
                refuse_without_consent(self._plan, self._allowed)
                await claims.enter_async_context(self._pointer.claimed(self._items.values()))
                left = list(self._plan.steps)
                while left:
                    lease.check()
                    self._stop.obey()
                    step = left.pop(0)
                    context = self._context(step, journal)
                    await self._reverting.before(context)
                    await self._step(context, journal)
                    self._reverting.after(step, self._report.steps[step.id])
                    if step.verb == "pause":
                        left = await self._as_it_stands(step.target, left)
            except BaseException as raised:
                self._stop.ending = True
                self._emit = tally  # what closes a bracket is not stopped
                error = await self._failed(raised, context, lease, journal)
            finally:
                self._report.seconds = time.monotonic() - started
                self._report.serving = self._serving()
                self._report.quarantined = tally.counts()
                self._report.paused = {
                    name: round(seconds, 3) for name, seconds in self._standings.paused.items()
                }
                await self._standings.close()
                await claims.aclose()
            outcome = "done" if error is None else "interrupted" if isinstance(error, _STOPPED) else "failed"
            self._report.outcome = outcome
            journal.end_run(run, outcome, None if error is None else words_of(error)[1])
            self._emit(
                RunDone(
                    run=run,
                    outcome=outcome,
                    seconds=round(self._report.seconds, 3),
                    serving=self._report.serving,
                    quarantined=self._report.quarantined,
                    paused=self._report.paused,
                )
            )
        if error is not None and not isinstance(error, _STOPPED):
            raise error
        if error is not None:
            serving = ", ".join(f'"{name}" by "{backend}"' for name, backend in self._report.serving.items())
            raise Interrupted(
                f"interrupted; served are {serving}", hint="hybridrag apply goes on from the checkpoint"
            )
        return self._report

    async def _failed(
        self, error: BaseException, context: Context | None, lease: Lease, journal: Journal
    ) -> BaseException:
        """What the run fails with. Brackets are closed, unless they are another run's by now."""
        if (overtaken := lease.overtaken()) is not None:
            if isinstance(error, _STOPPED) or error is overtaken:
                return error
            overtaken.__cause__ = error
            return overtaken
        if context is not None:
            error = await self._reverting.failed(error, context)
        await self._close_brackets(journal)
        return error

    def _serving(self) -> dict[str, str]:
        with contextlib.suppress(HybridragError):
            return {name: served_by(self._world.serving(item)) for name, item in self._items.items()}
        return {}

    async def _step(self, context: Context, journal: Journal) -> None:
        step, action = context.step, BY_VERB[context.step.verb]
        started = time.monotonic()
        journal.begin_step(self._report.run, step.id)
        self._emit(StepStarted(step=step.id, summary=step.summary))
        try:
            detail, outcome = await action.check(context, ran=False), "unchanged"
            if detail is None:
                await action.do(context)
                detail, outcome = await action.check(context, ran=True), "done"
            if detail is None:
                raise NotConverged(
                    f'step "{step.id}" ran, but observing again does not show its result',
                    hint="hybridrag plan shows what is observed now",
                )
        except BaseException as error:
            code, message = words_of(error)
            journal.end_step(self._report.run, step.id, "failed", message)
            self._emit(StepFailed(step=step.id, code=code, message=message))
            raise
        self._report.steps[step.id] = outcome
        journal.end_step(self._report.run, step.id, outcome, detail)
        seconds = round(time.monotonic() - started, 3)
        self._emit(StepDone(step=step.id, outcome=outcome, seconds=seconds, detail=detail))

    async def _as_it_stands(self, database: str, left: list[Step]) -> list[Step]:
        """The steps that are left. Where the writer was stopped first and had gone on until then, they are planned anew.

        What is copied is what is there now, not what was there when somebody looked. Raises PlanRefused where another
        plan would be made of it.
        """
        moves = self._plan.moves_of(database)
        mine = {database, *(move.id for move in moves)}
        wanted = [step.id for step in left if step.target in mine]
        item = self._items[database]
        if not any(step.verb == "validate" and step.target in mine for step in left):
            return left
        states = [
            await self._world.store(item, m.source, frozenset(m.slots)).reader().fingerprint() for m in moves
        ]
        if states == [move.fingerprint for move in moves]:
            return left
        planned = await plan_world(self._world, [database])
        fresh = {step.id: step for step in planned.plan.steps}
        if [name for name in fresh if name in wanted] != wanted:
            raise PlanRefused(
                f'database "{database}" was changed after it was planned, and another plan is needed; nothing was switched',
                hint="hybridrag plan shows it",
            )
        seen, before = planned.observation, self._observation
        self._observation = Observation(
            facts={**before.facts, **seen.facts}, details={**before.details, **seen.details}
        )
        self._plan = replace(self._plan, moves={**self._plan.moves, **planned.plan.moves})
        return [fresh.get(step.id, step) if step.id in wanted else step for step in left]

    async def _close_brackets(self, journal: Journal) -> None:
        """Resume every database whose pause is open; a failure of that is told beside the first error."""
        for step in self._plan.steps:
            if step.verb != "resume" or journal.pause_of(step.target) is None:
                continue
            try:
                await self._step(self._context(step, journal), journal)
            except Exception as error:  # it must not hide the first one
                self._emit(
                    Warned(step=step.id, message=f"the pause could not be closed: {words_of(error)[1]}")
                )

    def _context(self, step: Step, journal: Journal) -> Context:
        move = self._plan.moves.get(step.target)
        backend = self._world.backend(step.target) if step.verb == "provision" else None
        if backend is not None:
            return self._server_context(step, backend, journal)
        item = self._items[move.database if move else step.target]
        # A step of one part is about that one; pause, switch and resume are about the whole database.
        moves = [move] if move and step.verb in ONE_PART else self._plan.moves_of(item.database)
        return Context(
            run=self._report.run,
            step=step,
            backend=None,
            parts=tuple(self._part(item, each) for each in moves),
            database=item.database,
            path=item.path,
            workspace=item.workspace,
            embedding=item.embedding,
            batch=item.batch,
            lanes=item.lanes,
            quarantine=item.quarantine,
            placement={slot: self._world.backend(place.name) for slot, place in item.placement.items()},
            memory=journal,
            standings=self._standings,
            pointer=self._pointer,
            halter=self._world.halters.get(item.database),
            serving=lambda: self._world.selection(item),
            allowed=self._allowed,
            emit=self._emit,
        )

    def _server_context(self, step: Step, backend: Backend, journal: Journal) -> Context:
        """A step about a server, which no database needs to be on."""
        return Context(
            run=self._report.run,
            step=step,
            backend=backend,
            parts=(),
            database="",
            path="",
            workspace="",
            embedding=Embedding(model=None, dim=1),
            batch=1,
            lanes=1,
            quarantine=False,
            placement={},
            memory=journal,
            standings=self._standings,
            pointer=self._pointer,
            halter=None,
            serving=Selection,
            allowed=self._allowed,
            emit=self._emit,
        )

    def _part(self, item: Wanted, move: Move) -> Part:
        slots = frozenset(move.slots)
        facts = self._observation.of(store_thing(item.database, move.source, slots))
        counts = {name: facts.get(f"records/{name}") for name in streams_of(slots)}
        return Part(
            move=move,
            backend=self._world.holder(move.target),
            source=self._world.store(item, move.source, slots),
            target=self._world.store(item, move.target, slots),
            records={name: count for name, count in counts.items() if isinstance(count, int)},
        )
