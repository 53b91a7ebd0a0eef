"""`hybridrag retire DB`: delete what is kept of earlier backends, and with it the way back."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from hybridrag.errors import PlanRefused

from .common import Settings, command_options

if TYPE_CHECKING:
    from hybridrag.engine.retiring import Doomed


@click.command()
@click.argument("database", metavar="DB")
@click.option("--now", "hurry", is_flag=True, help="Do not wait for the end of lifecycle.keep_source.")
@click.option("--confirm", metavar="NAME", help="The database's name, where nobody can be asked.")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(["other_data"]),
    help="Also what was written since it was left, or is gone from what serves.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be deleted and write nothing.")
@command_options
def retire(
    settings: Settings,
    database: str,
    hurry: bool,
    confirm: str | None,
    allow: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Delete the copies that earlier backends keep of a database, once their time is over.

    What serves is never touched, nor what another database or workspace has there. There is no way back
    afterwards. Nothing to delete is no error.

    Exit codes: 0, 4 a backend cannot be asked, 5 refused, 6 not found, 7 what serves holds less, 9 an apply runs.
    """
    from hybridrag.engine.retiring import plan_retirement
    from hybridrag.model.plan import HazardKind

    from .apply import run_plan

    world = settings.environment().world
    item = world.database(database)
    allowed = [HazardKind(name) for name in allow]
    now = datetime.now(timezone.utc)
    made = asyncio.run(plan_retirement(world, item, now, hurry=hurry, allowed=allowed))
    out = settings.out()
    told = {"database": database, "delete": [_json(each) for each in made.doomed]}
    if not made.doomed:
        if settings.json:
            settings.print_json({"outcome": "done", **told})
        elif not settings.quiet:
            out.print(f'Nothing is kept of "{escape(database)}".')
        return
    if not settings.json:
        out.print(f'To be deleted, with the way back of "{escape(database)}":')
        for each in made.doomed:
            out.print(f"  [bad]-[/] {escape(_line(each, item.path, item.workspace))}")
        for early in made.early:
            out.print(f"  {escape(early.shown)} stays until {early.until:%Y-%m-%d %H:%M}Z")
    if dry_run:
        if settings.json:
            settings.print_json({"dry_run": True, **told})
        return
    _agreed(settings, database, confirm)
    report = run_plan(settings, world, made.planned, allowed)
    if settings.json:
        settings.print_json({"outcome": report.outcome, **told})
    else:
        out.print(f"\n[good]Done[/] in {report.seconds:.1f} s.")


def _line(doomed: Doomed, path: str, workspace: str) -> str:
    from hybridrag.render.units import size

    where = (
        f'the files of it in "{path}"'
        if doomed.kept.type == "json"
        else f'the rows of workspace "{workspace}"'
    )
    bytes_ = f", {size(doomed.bytes)}" if doomed.bytes is not None else ""
    changed = "; written since it was left" if doomed.changed else ""
    since = f"{doomed.kept.since:%Y-%m-%d %H:%M}Z"
    told = f"{doomed.records:,} records{bytes_}, kept since {since}{changed}"
    return f"{doomed.kept.shown}: {where}: {told}" + (f"; and {doomed.drops} itself" if doomed.drops else "")


def _json(doomed: Doomed) -> dict[str, object]:
    kept = doomed.kept
    return {
        "backend": kept.backend,
        "type": kept.type,
        "slots": [slot.value for slot in kept.slots],
        "since": kept.since.isoformat(),
        "records": doomed.records,
        "bytes": doomed.bytes,
        "drops": doomed.drops,
    }


def _agreed(settings: Settings, database: str, confirm: str | None) -> None:
    """Raises PlanRefused unless the database's name was typed."""
    if confirm is None and not settings.json and sys.stdin.isatty():
        confirm = click.prompt(
            "\nType the name of the database to delete that", default="", show_default=False, err=True
        )
    if confirm is None:
        raise PlanRefused(
            "retire deletes data, and nobody can be asked here",
            hint=f"hybridrag retire {database} --confirm {database}",
        )
    if confirm != database:
        raise PlanRefused(f'"{confirm}" is not "{database}"; nothing was deleted')
