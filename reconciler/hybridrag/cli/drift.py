"""`hybridrag drift`: what moved since the last apply; `hybridrag repair DB`: put back what was lost."""

from __future__ import annotations

import asyncio
import sys

import click

from hybridrag.errors import PlanRefused

from .common import Settings, command_options


@click.command()
@click.argument("databases", nargs=-1, metavar="[DB]...")
@command_options
def drift(settings: Settings, databases: tuple[str, ...]) -> None:
    """What moved since the last apply: written as usual, or damaged (lost or changed by something else than LightRAG).

    Where the copy that served before is still kept, every record is compared with it. Writes nothing.

    Exit codes: 0 nothing is damaged, 2 something is, 3 spec or registry invalid, 6 not found.
    """
    from hybridrag.engine.drifting import drift as look
    from hybridrag.render.drift_report import drift_json, show_drift
    from hybridrag.render.run_text import RunDisplay

    env = settings.environment()
    with RunDisplay(settings.out(to_stderr=True), quiet=settings.quiet or settings.json) as display:
        found = asyncio.run(look(env.world, databases, display.on_event))
    if settings.json:
        settings.print_json(drift_json(env.world.environment, found))
    else:
        show_drift(settings.out(), found)
    if any(each.damaged for each in found):
        raise click.exceptions.Exit(2)


@click.command()
@click.argument("database", metavar="DB")
@click.option("--dry-run", is_flag=True, help="Show what would be put back and write nothing.")
@click.option("--yes", "--auto-approve", "yes", is_flag=True, help="Do not ask on a terminal.")
@command_options
def repair(settings: Settings, database: str, dry_run: bool, yes: bool) -> None:
    """Put back what a database lost: a vector index, or records and vectors from what is kept of it.

    Only what is missing is written, and compared afterwards; a record that is there is never touched.

    Exit codes: 0 done or nothing to repair, 4 a backend cannot be used, 5 refused, 6 not found, 7 what was put back is not
    there, 8 interrupted (run it again), 9 an apply runs.
    """
    from rich.markup import escape

    from hybridrag.engine.repairing import plan_repair
    from hybridrag.render.run_text import RunDisplay

    from .apply import run_plan

    world = settings.environment().world
    with RunDisplay(settings.out(to_stderr=True), quiet=settings.quiet or settings.json) as display:
        made = asyncio.run(plan_repair(world, database, display.on_event))
    out = settings.out()
    told = {"database": database, "repairs": list(made.words), "left": list(made.left)}
    if not settings.json:
        for words in made.words:
            out.print(f"  [good]+[/] {escape(words)}")
        for words in made.left:
            out.print(f"  [warn]![/] {escape(words)}")
    if made.planned.plan.empty or dry_run:
        if settings.json:
            settings.print_json({"outcome": "done", **told} if not dry_run else {"dry_run": True, **told})
        elif made.planned.plan.empty:
            out.print(f'Nothing of "{escape(database)}" is to be put back.')
        return
    asked = not yes and not settings.json and sys.stdin.isatty()
    if asked and not click.confirm(f'\nPut that back into "{database}"?', default=False, err=True):
        raise PlanRefused("not approved; nothing was done")
    report = run_plan(settings, world.as_it_is(world.database(database)), made.planned, [])
    if settings.json:
        settings.print_json({"outcome": report.outcome, **told})
    else:
        out.print(f"\n[good]Done[/] in {report.seconds:.1f} s.")
