"""`hybridrag apply`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from .common import Settings, command_options, parallelism_option
from .stopping import be_deaf, run_stoppable

if TYPE_CHECKING:
    from hybridrag.api import Environment
    from hybridrag.engine import Planned, RunReport, World
    from hybridrag.model.events import Event
    from hybridrag.model.plan import HazardKind

HAZARDS = [
    "data_copy",
    "writer_pause",
    "shared_index",
    "field_loss",
    "restart",
    "other_data",
    "replace_kept",
    "overwrite",
    "incomplete_source",
]


@click.command()
@click.argument("plan_file", required=False, type=click.Path(dir_okay=False), metavar="[PLAN]")
@click.option("--auto-approve", is_flag=True, help="Do not ask.")
@click.option(
    "--allow", multiple=True, type=click.Choice(HAZARDS), help="Allow a hazard by name (repeatable)."
)
@click.option("--target", "targets", multiple=True, metavar="DB", help="Only this database (repeatable).")
@click.option("--exclude", multiple=True, metavar="DB", help="All but this database (repeatable).")
@click.option("--events", type=click.Path(dir_okay=False), metavar="FILE", help="Write events as JSON lines.")
@parallelism_option
@command_options
def apply(
    settings: Settings,
    plan_file: str | None,
    auto_approve: bool,
    allow: tuple[str, ...],
    targets: tuple[str, ...],
    exclude: tuple[str, ...],
    events: str | None,
    parallelism: int | None,
) -> None:
    """Carry out the plan: provision, validate, pause, migrate, verify, switch, resume.

    Exit codes: 0 done or nothing to do, 3 spec, plan file or registry invalid, 4 a backend or a file cannot be
    used, 5 refused, 6 not found, 7 verification failed, 8 interrupted (run it again), 9 another apply runs, or took
    this one over while it slept.
    """
    from hybridrag.engine.registering import confirm
    from hybridrag.model.plan import HazardKind
    from hybridrag.render.plan_text import show_plan

    env = settings.environment()
    planned = _planned(env, plan_file, targets, exclude)
    out = settings.out()
    if not settings.json and not plan_file and not settings.quiet:
        show_plan(out, planned.plan, allowed=[HazardKind(name) for name in allow])
    if planned.plan.empty:
        asyncio.run(confirm(env.world, planned.items))
        if settings.json:
            settings.print_json({"outcome": "done", "steps": {}, "changes": 0})
        return
    if not plan_file and not auto_approve:
        _ask(settings)
    if not settings.json and not plan_file and not settings.quiet:
        out.print("")
    report = run_plan(
        settings,
        env.world,
        planned,
        [HazardKind(name) for name in allow],
        events=events,
        stream=settings.json,
        parallelism=parallelism,
    )
    if settings.json:
        return
    serving = ", ".join(f"{name} on {backend}" for name, backend in report.serving.items())
    paused = "".join(f"; writer of {name} paused {seconds:.1f} s" for name, seconds in report.paused.items())
    out.print(f"\n[good]Done[/] in {report.seconds:.1f} s{paused}. Serving: {serving}.")
    tell_settings(settings, env.world, [move.database for move in planned.plan.moves.values()])


def tell_settings(settings: Settings, world: World, databases: list[str]) -> None:
    """What is left to do outside: a LightRAG whose writer nobody declared reads its old settings until it is told."""
    from hybridrag.engine.late import settings_hint

    for name in dict.fromkeys(databases):
        if name not in world.halters:
            settings.out().print(f"[next]→ LightRAG still uses its old settings: {settings_hint(name)}[/]")


def _planned(
    env: Environment, plan_file: str | None, targets: tuple[str, ...], exclude: tuple[str, ...]
) -> Planned:
    from hybridrag.engine import plan_world
    from hybridrag.engine.saved_plans import plan_as_saved
    from hybridrag.planner import load

    if plan_file is None:
        return asyncio.run(plan_world(env.world, targets, exclude))
    return asyncio.run(plan_as_saved(env.world, load(Path(plan_file))))


def _ask(settings: Settings) -> None:
    from hybridrag.errors import PlanRefused

    if settings.json or not sys.stdin.isatty():
        raise PlanRefused(
            "apply needs an approval, and nobody can be asked here",
            hint="hybridrag apply --auto-approve, or hybridrag plan --out FILE and hybridrag apply FILE",
        )
    if not click.confirm("\nApply this plan?", default=False, err=True):
        raise PlanRefused("not approved; nothing was done", hint="hybridrag plan shows it again")


def run_plan(
    settings: Settings,
    world: World,
    planned: Planned,
    allowed: list[HazardKind],
    *,
    events: str | None = None,
    stream: bool = False,
    also: Callable[[Event], None] | None = None,
    parallelism: int | None = None,
) -> RunReport:
    """Carry out a plan with a display for people; `stream` writes events to stdout, `also` hears them."""
    if parallelism is not None:
        items = tuple(dataclasses.replace(item, lanes=parallelism) for item in planned.items)
        planned = dataclasses.replace(planned, items=items)
    from hybridrag.engine import Run, Stop
    from hybridrag.render.run_text import RunDisplay

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open_events(events)) if events else None
        display = (
            None if settings.json else stack.enter_context(RunDisplay(settings.out(), quiet=settings.quiet))
        )

        def listen(event: Event) -> None:
            for to in (file, sys.stdout if stream else None):
                if to is not None:
                    _write(to, event)
            if also is not None:
                also(event)
            if display is not None:
                try:
                    display.on_event(event)
                except OSError:  # the terminal is gone, the work is not
                    be_deaf()

        stop = Stop()
        return run_stoppable(Run(world, planned, listen, allowed, stop).execute(), stop)


def _open_events(name: str) -> TextIO:
    from hybridrag.errors import NotFound

    try:
        return Path(name).open("w", encoding="utf-8")
    except OSError as error:
        raise NotFound(
            f'the events cannot be written to "{name}": {error.strerror}', hint="choose another --events FILE"
        ) from None


def _write(stream: TextIO, event: Event) -> None:
    stream.write(json.dumps(event.as_dict(), ensure_ascii=False) + "\n")
    stream.flush()
