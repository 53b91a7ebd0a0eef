"""One daemon for one database: its log, its lease, its lock, from the first look to the last word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path

from hybridrag.errors import HybridragError, LeaseHeld
from hybridrag.journal import Lease, StateBusy, WatchState, WriterLock, watch_path

from .control import TICK_S, Control
from .daemon import Daemon
from .logs import logging_to
from .reporting import Report
from .view import Load, MakeIngester, View
from .writer import Writer

LOG = logging.getLogger("hybridrag.watch")
LOCK_S = 30.0
"""How long the process of an earlier daemon is waited for."""
TAKEN = "another daemon watches this database"


def log_path(state: Path, database: str) -> Path:
    return state / "watch" / f"{database}.log"


def child_log_path(state: Path, database: str) -> Path:
    """What LightRAG itself prints."""
    return state / "watch" / f"{database}.lightrag.log"


async def watch(state: Path, view: View, load: Load, make_ingester: MakeIngester, *, terminal: bool) -> None:
    """Watch until SIGTERM or Ctrl-C. Raises LeaseHeld where another daemon does. `state` is the environment's folder."""
    database = view.watched.database
    path = watch_path(state, database)
    with (
        WatchState(path) as shared,
        WatchState(path) as beating,  # the lease beats while the other one waits for somebody
        logging_to(log_path(state, database), database, terminal=terminal),
        contextlib.closing(WriterLock(path)) as lock,
    ):
        report = Report(shared)
        control = Control(shared, on_ask=lambda detail: report.say(report.now.state, detail))
        control.obey_signals()
        writer = Writer(
            shared, control, make_ingester, log=child_log_path(state, database), inherit=(lock.fd,)
        )
        try:
            await _under_lease(beating, shared, lock, control, report, writer, view, load)
        except LeaseHeld as error:
            error.hint = f"hybridrag watch status {database}"
            if not terminal:  # who reads along is told anyway
                LOG.error("%s", error.what, extra={"event": "taken"})
            raise


async def _under_lease(
    beating: WatchState,
    shared: WatchState,
    lock: WriterLock,
    control: Control,
    report: Report,
    writer: Writer,
    view: View,
    load: Load,
) -> None:
    who = "hybridrag watch"
    locked = False
    while not control.stopping:
        try:
            with Lease(beating, who, taken=TAKEN, name="daemon") as lease:
                if not locked:
                    await _take(lock, control)
                    locked = True
                if control.stopping:
                    return
                report.say("starting")
                LOG.info(
                    'watching "%s"', view.watched.source.path,
                    extra={"event": "started", "pid": os.getpid(), "backend": view.backend},
                )  # fmt: skip
                daemon = Daemon(shared, control, report, writer, view=view, load=load)
                await daemon.serve(lambda lease=lease: lease.lost)  # type: ignore[misc]
                if control.stopping:
                    with contextlib.suppress(HybridragError):
                        report.say("stopped")
                    LOG.info("stopped", extra={"event": "stopped"})
                    return
        except StateBusy as error:
            LOG.warning("the watcher's state cannot be used now: %s", error, extra={"event": "state"})
        LOG.warning(
            "the lease was lost (this machine slept, or the state folder could not be written); it is taken anew",
            extra={"event": "lease_lost"},
        )
        await asyncio.sleep(1.0)


async def _take(lock: WriterLock, control: Control) -> None:
    """The lock that an earlier daemon's process may still hold. Raises LeaseHeld where it does not let go."""
    deadline = time.monotonic() + LOCK_S
    while not lock.take() and not control.stopping:
        if time.monotonic() > deadline:
            raise LeaseHeld(
                f"{TAKEN}: a process that writes for it is still there",
            )
        await asyncio.sleep(TICK_S)
