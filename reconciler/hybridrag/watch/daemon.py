"""The daemon's loop: look, hand over, obey. One database; it writes only through its `Writer`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from hybridrag.errors import BackendUnavailable, HybridragError
from hybridrag.journal import StateBusy, WatchState
from hybridrag.model.watching import Document, Fate, Outcome

from .control import TICK_S, Control, Cut
from .intake import Intake
from .monitor import Monitor
from .reporting import Report
from .trouble import Trouble
from .view import Load, View, stamps
from .writer import Writer

LOG = logging.getLogger("hybridrag.watch")
IDLE_S = 300.0
"""LightRAG on files holds all of a database in memory, on a server its connections: not for an idle day."""
MONITOR_S = 60.0


class Daemon:
    """`serve` until `control` says to stop. What it does stands in its state, what happened in the log."""

    def __init__(
        self,
        state: WatchState,
        control: Control,
        report: Report,
        writer: Writer,
        *,
        view: View,
        load: Load,
    ) -> None:
        self._state = state
        self._control = control
        self._report = report
        self._writer = writer
        self._load = load
        self._trouble = Trouble()
        self._monitor = Monitor(state)
        self._monitored = 0.0
        self._view = view
        self._read_from = stamps(view.inputs)
        self._registry = self._read_from[0]
        self._usable = True
        self._slip = ""
        self._intake = Intake(view.watched)
        report.now = replace(report.now, backend=view.backend)

    async def serve(self, lost: Callable[[], bool]) -> None:
        """Until the end is asked for, or the lease is `lost`; nothing is written any more when it returns."""
        try:
            while not self._control.stopping and not lost():
                try:
                    worked = await self._turn(lost)
                except Cut:
                    worked = False
                except StateBusy as error:  # somebody holds our state for long
                    LOG.warning(
                        "the watcher's state cannot be written now: %s", error, extra={"event": "state"}
                    )
                    worked = False
                except BackendUnavailable as error:
                    worked = await self._lost(error)
                except HybridragError as error:
                    worked = await self._stuck(error)
                except Exception:
                    LOG.exception("unexpected error; it is tried again", extra={"event": "unexpected"})
                    worked = await self._lost(BackendUnavailable("unexpected error; the log has its place"))
                if not worked:
                    await asyncio.sleep(TICK_S)
        finally:
            await self._writer.close()
            await self._intake.stop()

    async def _turn(self, lost: Callable[[], bool]) -> bool:
        """One round; whether there may be more to do at once."""
        if self._control.asked():
            await self._hold(lost)
            return True
        await self._refresh()
        if self._trouble.waiting:
            return False
        await self._intake.look()
        if await self._intake.examine():
            self._say_counts("ingesting", "looking through the source")
            return True
        return await self._hand_over(self._intake)

    # --- obeying ---

    async def _hold(self, lost: Callable[[], bool]) -> None:
        """Drained, acknowledged, still; until no request holds."""
        begun = time.monotonic()
        was_open = self._writer.is_open
        await self._writer.close()
        said: list[str] = []
        while not self._control.stopping and not lost():
            asked = self._state.pauses()
            if not asked:
                activity = replace(self._report.now, state="starting", detail="", last_error=None)
                if await asyncio.to_thread(self._state.may_write, activity):
                    self._report.was_written(activity)
                    break
            elif not all(asked.values()):
                self._report.say("paused", f"asked for by {', '.join(asked)}")
                self._state.acknowledge()
                if said != list(asked):
                    said = list(asked)
                    LOG.info(
                        "paused for %s after %.1f s; nothing is written", ", ".join(asked),
                        time.monotonic() - begun if was_open else 0.0,
                        extra={"event": "paused", "owners": list(asked)},
                    )  # fmt: skip
            elif list(asked) != said:  # paused before this daemon was started, or one of several was lifted
                said = list(asked)
                self._report.say("paused", f"asked for by {', '.join(asked)}")
            await asyncio.sleep(TICK_S)
        else:
            return
        self._intake.backlog.learned = False  # whoever asked may have changed anything
        self._trouble.over()
        LOG.info("the pause is over", extra={"event": "resumed"})

    async def _refresh(self) -> None:
        """Read spec and registry again where they changed; what writes on another backend is stopped first."""
        seen = stamps(self._view.inputs)
        if seen == self._read_from and (self._usable or self._trouble.waiting):
            return
        self._read()
        self._trouble.over()
        await self._follow()

    def _read(self) -> View:
        """The view of this moment; a change while it is read is seen as one after it.

        A slip in the spec stops nobody: the spec as it was holds. A registry that says something new must be understood.
        """
        self._read_from = stamps(self._view.inputs)
        try:
            view = self._load()
        except HybridragError as error:
            self._usable = self._read_from[0] == self._registry
            if not self._usable:
                raise
            if (told := in_words(error)) != self._slip:
                self._slip = told
                LOG.error("%s; the spec as it was holds", told, extra={"event": "spec", "hint": error.hint})
            return self._view
        if view.inputs != self._view.inputs:
            self._read_from = stamps(view.inputs)
        if self._view.backend != view.backend:
            LOG.info(
                'the registry names "%s" now', view.backend,
                extra={"event": "backend", "backend": view.backend, "before": self._view.backend},
            )  # fmt: skip
        self._view, self._registry, self._usable, self._slip = view, self._read_from[0], True, ""
        return view

    async def _follow(self) -> None:
        view = self._view
        if self._writer.view is not None and not view.writes_like(self._writer.view):
            await self._writer.close()
            self._intake.backlog.learned = False
        if self._intake.watched != view.watched:
            await self._intake.stop()
            self._intake = Intake(view.watched)
        self._report.now = replace(self._report.now, backend=view.backend)

    # --- working ---

    async def _hand_over(self, intake: Intake) -> bool:
        """Give the next group to LightRAG; False where there is none."""
        backlog = intake.backlog
        if not backlog.pending() and (backlog.learned or not len(backlog)):
            await self._rest(intake)
            return False
        if not self._writer.is_open:
            await self._open(intake)
        documents = await intake.take()
        if not documents:
            if self._trouble.losses:
                self._recovered()
            return bool(backlog.pending())
        self._say_counts("ingesting", documents[0].name)
        begun = time.monotonic()
        try:
            outcomes = await self._writer.ingest(documents)
        except BackendUnavailable:
            intake.alone(documents)
            if (given_up := self._trouble.strike(documents)) is not None:
                reason = "LightRAG's process, or its connection, was lost each time"
                backlog.give_up(given_up, reason)
                self._tell_failed(given_up.name, reason)
            raise
        finally:
            backlog.learned = backlog.learned and self._writer.is_open
        self._settle(intake, documents, outcomes, time.monotonic() - begun)
        return True

    async def _open(self, intake: Intake) -> None:
        activity = replace(self._report.now, state="starting", detail="LightRAG starts")
        self._report.was_written(activity)
        intake.backlog.learn(await self._writer.open(self._read, activity))
        backend = self._view.backend
        self._report.now = replace(self._report.now, backend=backend)
        LOG.info('LightRAG is up on "%s"', backend, extra={"event": "up", "backend": backend})

    def _settle(
        self, intake: Intake, documents: Sequence[Document], outcomes: Sequence[Outcome], seconds: float
    ) -> None:
        told = {outcome.name: outcome for outcome in outcomes}
        for document in documents:
            outcome = told.get(document.name) or Outcome(
                name=document.name, fate=Fate.FAILED, characters=len(document.text), seconds=0.0,
            )  # fmt: skip
            intake.backlog.settle(document, outcome)
            if outcome.fate is Fate.FAILED:
                self._tell_failed(outcome.name, outcome.reason or "LightRAG does not say why")
                continue
            LOG.info(
                '"%s" is %s', outcome.name, "ingested" if outcome.fate is Fate.INGESTED else "known already",
                extra={"event": outcome.fate.value, "document": outcome.name, "characters": outcome.characters,
                       "seconds": round(outcome.seconds, 3)},
            )  # fmt: skip
        done = sum(outcome.fate is Fate.INGESTED for outcome in outcomes)
        self._report.now = replace(self._report.now, ingested=self._report.now.ingested + done)
        self._trouble.cleared(documents)
        intake.together(documents)
        self._monitor.note(self._view, outcomes, seconds)
        if any(outcome.fate is not Fate.FAILED for outcome in outcomes):
            self._recovered()
        elif self._trouble.all_failed():
            reason = next((outcome.reason for outcome in outcomes if outcome.reason), "no reason given")
            raise BackendUnavailable(f"every document fails: {reason}")
        self._look_after()

    def _tell_failed(self, name: str, reason: str) -> None:
        LOG.warning(
            '"%s" failed: %s; it is tried again later', name, reason[:300],
            extra={"event": "failed", "document": name, "reason": reason[:300]},
        )  # fmt: skip
        self._report.now = replace(self._report.now, last_error=f"{name}: {reason[:300]}")

    async def _rest(self, intake: Intake) -> None:
        if self._writer.idle_s > IDLE_S:
            await self._writer.close()
            LOG.info("nothing to do; LightRAG's process is ended", extra={"event": "rest"})
        if self._trouble.losses:
            self._recovered()
        self._say_counts("idle", intake.problem or "")
        self._look_after()

    # --- telling ---

    def _say_counts(self, state: str, detail: str = "") -> None:
        backlog = self._intake.backlog
        queued = len(backlog.pending()) + backlog.unsettled
        self._report.say(state, detail, queued=queued, failed=len(backlog.problems))

    def _look_after(self) -> None:
        """Sizes: after work, and now and then."""
        patience = MONITOR_S if self._report.now.state == "idle" and self._monitored else TICK_S
        if time.monotonic() - self._monitored < patience:
            return
        self._monitored = time.monotonic()
        self._monitor.look(self._view)

    def _recovered(self) -> None:
        if losses := self._trouble.well():
            LOG.info("recovered after %d attempts", losses, extra={"event": "recovered", "attempts": losses})
            self._report.now = replace(self._report.now, last_error=None)

    async def _lost(self, error: BackendUnavailable) -> bool:
        await self._writer.close()
        wait = self._trouble.lost()
        LOG.warning(
            "%s; next attempt (%d) in %.1f s", error.what, self._trouble.losses, wait,
            extra={"event": "lost", "attempt": self._trouble.losses, "wait_s": round(wait, 1)},
        )  # fmt: skip
        self._wait(error)
        return False

    async def _stuck(self, error: HybridragError) -> bool:
        """Only somebody's change can help; the spec is looked at all the time, the rest after an interval."""
        await self._writer.close()
        self._trouble.wait(self._view.watched.interval_s)
        if self._report.now.detail != error.what:
            LOG.error("%s", in_words(error), extra={"event": "stuck", "hint": error.hint})
        self._wait(error)
        return False

    def _wait(self, error: HybridragError) -> None:
        with contextlib.suppress(HybridragError):  # a full disk may be what is waited for
            self._report.say("waiting", error.what, last_error=error.what)


def in_words(error: HybridragError) -> str:
    """An error on one line: of several problems the first."""
    first = next(iter(getattr(error, "problems", ())), error)
    return f"{first.where}: {first.what}" if first.where else str(first.what)
