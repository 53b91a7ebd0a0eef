"""`hybridrag watch …`: the daemon that feeds a database, and the words to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hybridrag.errors import BackendUnavailable, NotFound, PlanRefused

from .common import Settings, command_options

if TYPE_CHECKING:
    from hybridrag.api import Environment
    from hybridrag.journal import WatchLook
    from hybridrag.watch.view import View

START_S = 60.0
LOOK_S = 0.1


@click.group()
def watch() -> None:
    """Feed databases from folders, all day: one daemon for each database."""


def run_argv(settings: Settings, database: str) -> list[str]:
    """The command that watches a database, from any folder."""
    argv = [sys.executable, "-m", "hybridrag", "watch", "run", database]
    for path in settings.paths():
        argv += ["--file", str(path.absolute())]
    return [*argv, "--state", str(Path(settings.state).absolute())] if settings.state else argv


def _place(settings: Settings, database: str) -> tuple[Environment, View, Path]:
    """The environment, what the daemon works with, and the file that they speak through."""
    from hybridrag.assembly import watch_view
    from hybridrag.journal import watch_path

    env = settings.environment()
    view = watch_view(env.spec, env.world, database)
    return env, view, watch_path(env.world.state, database)


def _refuse_other_embedding(env: Environment, database: str) -> None:
    """Raises PlanRefused where the watcher would write beside the database's vectors; a server that is away is no reason.

    In a thread, for it is also called where an event loop runs.
    """
    from hybridrag.engine.embedding import settled

    with ThreadPoolExecutor(1) as thread:
        error = thread.submit(asyncio.run, settled(env.world, env.world.database(database))).result()
    if error is not None:
        raise error


def _running(path: Path) -> WatchLook | None:
    from hybridrag.journal import look_at_watcher

    look = look_at_watcher(path)
    return look if look is not None and look.running else None


@watch.command()
@click.argument("database", metavar="DB")
@command_options
def run(settings: Settings, database: str) -> None:
    """Watch in the foreground, until Ctrl-C (twice: without ending the document in hand)."""
    from hybridrag.assembly import make_ingester, watch_view
    from hybridrag.watch.running import watch as serve

    env, view, _ = _place(settings, database)
    _refuse_other_embedding(env, database)

    def load() -> View:
        now = settings.environment()
        _refuse_other_embedding(now, database)
        return watch_view(now.spec, now.world, database)

    asyncio.run(serve(env.world.state, view, load, make_ingester, terminal=not settings.quiet))


@watch.command()
@click.argument("database", metavar="DB")
@command_options
def start(settings: Settings, database: str) -> None:
    """Watch in the background."""
    from hybridrag.watch.running import log_path

    env, _, path = _place(settings, database)
    if (look := _running(path)) is not None:
        _say(settings, env, database, f'"{database}" is watched already (pid {look.pid} on {look.host})')
        return
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*run_argv(settings, database), "--quiet", "--no-color"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            # The files are named one by one; --env beside them would be refused.
            env={name: value for name, value in os.environ.items() if name != "HYBRIDRAG_ENV"},
            start_new_session=True,
        )
        deadline = time.monotonic() + START_S
        while (look := _running(path)) is None or look.pid != process.pid or look.activity is None:
            if process.poll() is not None:
                said.seek(0)
                if (look := _running(path)) is not None:  # somebody else was quicker
                    _say(settings, env, database, f'"{database}" is watched already (pid {look.pid})')
                    return
                click.echo(said.read().decode("utf-8", "replace").rstrip(), err=True)
                raise click.exceptions.Exit(process.returncode or 1)
            if time.monotonic() > deadline:
                process.terminate()
                raise BackendUnavailable(
                    f'the watcher of "{database}" did not come up within {START_S:.0f} s',
                    hint=f"hybridrag watch run {database} shows what it does",
                )
            time.sleep(LOOK_S)
    log = log_path(env.world.state, database)
    _say(settings, env, database, f'watching "{database}" (pid {process.pid}); its log is {log}')


@watch.command()
@click.argument("database", metavar="DB")
@click.option("--now", "at_once", is_flag=True, help="Without ending the document in hand.")
@command_options
def stop(settings: Settings, database: str, at_once: bool) -> None:
    """End the daemon, after the document in hand."""
    env, view, path = _place(settings, database)
    look = _running(path)
    if look is None or look.pid is None:
        _say(settings, env, database, f'"{database}" is not watched')
        return
    if look.host != socket.gethostname():
        raise PlanRefused(
            f'the watcher of "{database}" runs on "{look.host}" (pid {look.pid})', hint="stop it there"
        )
    begun = time.monotonic()
    within = 30 if at_once else view.watched.drain_s + 30
    for _ in range(2 if at_once else 1):
        try:
            os.kill(look.pid, signal.SIGTERM)
        except ProcessLookupError:
            break
        except PermissionError:
            raise PlanRefused(
                f'the watcher of "{database}" (pid {look.pid}) is another user\'s',
                hint="stop it as that user",
            ) from None
        time.sleep(LOOK_S)  # two signals at once would count as one
    while (now := _running(path)) is not None and now.pid == look.pid:
        if time.monotonic() - begun > within:
            raise PlanRefused(
                f'the watcher of "{database}" (pid {look.pid}) did not end within {within} s',
                hint=f"hybridrag watch stop {database} --now",
            )
        time.sleep(LOOK_S)
    _say(
        settings,
        env,
        database,
        f'"{database}" is not watched any more, after {time.monotonic() - begun:.1f} s',
    )


@watch.command()
@click.argument("database", metavar="DB")
@command_options
def pause(settings: Settings, database: str) -> None:
    """Write nothing until `resume`, also across a restart; returns when nothing is written any more."""
    from hybridrag.journal import BY_HAND, WatchState
    from hybridrag.watch.asking import drained, still_busy

    env, view, path = _place(settings, database)
    with WatchState(path) as state:
        if state.pauses().get(BY_HAND):
            _say(settings, env, database, f'"{database}" is paused already')
            return
        begun = time.monotonic()
        state.ask_pause(BY_HAND, ttl_s=None)
        try:
            done = asyncio.run(drained(state, BY_HAND, within_s=view.watched.drain_s))
        except BaseException:
            state.lift_pause(BY_HAND)
            raise
        if not done:
            refused = still_busy(
                path, database, view.watched.drain_s, f"hybridrag watch status {database}, then try again"
            )
            state.lift_pause(BY_HAND)
            raise refused
    took = time.monotonic() - begun
    _say(
        settings,
        env,
        database,
        f'"{database}" is paused, after {took:.1f} s; hybridrag watch resume {database}',
    )


@watch.command()
@click.argument("database", metavar="DB")
@command_options
def resume(settings: Settings, database: str) -> None:
    """Take back a pause that was made by hand."""
    from hybridrag.journal import BY_HAND, WatchState

    env, _, path = _place(settings, database)
    lifted, others = False, []
    if path.exists():
        with WatchState(path) as state:
            lifted, others = state.lift_pause(BY_HAND), list(state.pauses())
    told = f'"{database}" may be written again' if lifted else f'"{database}" was not paused by hand'
    if others:
        told += f"; still paused by {', '.join(others)}"
    elif lifted and _running(path) is None:
        told += f"; no watcher runs: hybridrag watch start {database}"
    _say(settings, env, database, told)


@watch.command()
@click.argument("database", metavar="[DB]", required=False)
@command_options
def status(settings: Settings, database: str | None) -> None:
    """What the daemons do."""
    env = settings.environment()
    if database is not None and database not in env.world.watched:
        env.world.database(database)
        raise NotFound(
            f'database "{database}" is not fed by a watcher',
            where=env.spec.where("databases", database, "writer"),
            hint=f"set databases.{database}.writer: {{kind: watcher}}",
        )
    _show(settings, env, [database] if database else [])


def _say(settings: Settings, env: Environment, database: str, told: str) -> None:
    """What a command did; with --json the state that it left."""
    if settings.json:
        _show(settings, env, [database])
    elif not settings.quiet:
        click.echo(told)


def _show(settings: Settings, env: Environment, names: list[str]) -> None:
    from hybridrag.engine.watching import watchers
    from hybridrag.render.watch_json import watch_json
    from hybridrag.render.watch_text import show_watchers

    found = watchers(env.world, names)
    if settings.json:
        settings.print_json(watch_json(env.world.environment, found))
    else:
        show_watchers(settings.out(), found)
