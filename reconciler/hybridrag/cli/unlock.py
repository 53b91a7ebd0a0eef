"""`hybridrag unlock`: take the lease of an apply away, for who cannot wait until it ends by itself."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from hybridrag.errors import LeaseHeld, PlanRefused

from .common import Settings, command_options

if TYPE_CHECKING:
    from hybridrag.journal import Holder


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also from a process that lives on this machine.")
@command_options
def unlock(settings: Settings, yes: bool, force: bool) -> None:
    """Show who holds the lease of the environment, and take it away.

    Never needed for recovery: a lease ends with its process, or half a minute after its last heartbeat. Whoever held
    it writes nothing any more, even if it wakes up later; the next apply goes on from its checkpoint.

    Exit codes: 0 taken away, or nobody holds it; 1 the journal cannot be read; 5 nobody can be asked, give --yes;
    9 its process lives on this machine, or the lease changed hands.
    """
    from hybridrag.engine.history import lease_of
    from hybridrag.engine.history import unlock as take_away

    world = settings.environment().world
    held = lease_of(world)
    if held is None:
        if settings.json:
            settings.print_json({"held": False, "unlocked": False})
        else:
            settings.out().print(f"Nobody holds the lease of environment {escape(world.environment)}.")
        return
    if not settings.json:
        settings.out(to_stderr=True).print(escape(_line(held)))
    if held.lives_here and not force:
        raise LeaseHeld(
            f"its process {'is stopped, but lives' if held.stopped else 'lives'} on this machine (pid {held.pid})",
            hint=f"{'let it go on: kill -CONT' if held.stopped else 'stop it: kill -INT'} {held.pid}; "
            "or take the lease from under it: hybridrag unlock --force",
        )
    if not yes:
        _ask(settings)
    take_away(world, held)
    if settings.json:
        settings.print_json({"held": True, "unlocked": True, **_json(held)})
    else:
        settings.out().print("[good]Unlocked[/]. hybridrag apply goes on from the checkpoint.")


def _line(held: Holder) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(held.since))
    ago = time.time() - held.beat
    told = f"{ago:.0f} s ago" if ago >= -1 else f"{-ago:,.0f} s in the future (a clock was set)"
    return f"{held.owner} (pid {held.pid} on {held.host}), since {since}, last heartbeat {told}"


def _json(held: Holder) -> dict[str, object]:
    return {
        "owner": held.owner,
        "host": held.host,
        "pid": held.pid,
        "since": held.since,
        "heartbeat": held.beat,
        "fence": held.fence,
    }


def _ask(settings: Settings) -> None:
    if settings.json or not sys.stdin.isatty():
        raise PlanRefused(
            "taking a lease away needs an approval, and nobody can be asked here",
            hint="hybridrag unlock --yes",
        )
    if not click.confirm("Take the lease away?", default=False, err=True):
        raise PlanRefused("not approved; nothing was done")
