"""`hybridrag adopt DB --serving BACKEND`: say what serves a database, where the places contradict each other."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from hybridrag.errors import PlanRefused

from .common import Settings, command_options

if TYPE_CHECKING:
    from hybridrag.engine import World
    from hybridrag.engine.adopting import Adoption
    from hybridrag.model.data import Slot


@click.command()
@click.argument("database", metavar="DB")
@click.option(
    "--serving",
    "serving",
    multiple=True,
    required=True,
    metavar="[SLOT=]BACKEND",
    help="The backend that serves it; again with SLOT= where its slots lie apart.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be noted and write nothing.")
@click.option("--yes", "--auto-approve", "yes", is_flag=True, help="Do not ask on a terminal.")
@command_options
def adopt(settings: Settings, database: str, serving: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Say which backend serves a database; no record is moved or changed.

    For a database that was made on a server, and where plan says that the places contradict each other (a server was
    emptied or restored from a backup, two state folders switched it). Every place is told; other places that hold
    records of it are kept as the way back.

    Exit codes: 0, 4 a backend cannot be asked, 5 refused, 6 not found, 9 an apply runs.
    """
    from hybridrag.engine.adopting import adopt as carry_out
    from hybridrag.engine.adopting import plan_adoption

    world = settings.environment().world
    item = world.database(database)
    adoption = asyncio.run(plan_adoption(world, item, _placement(world, serving)))
    told = _json(adoption)
    if not settings.json and not settings.quiet:
        _show(settings, adoption)
    if dry_run:
        if settings.json:
            settings.print_json({"dry_run": True, **told})
        return
    if not yes and not settings.json and sys.stdin.isatty():
        click.confirm(f'\nLet "{adoption.serving}" serve "{database}"?', default=False, err=True, abort=True)
    untold = asyncio.run(carry_out(world, adoption))
    if settings.json:
        settings.print_json({"outcome": "done", **told, "warnings": list(untold)})
        return
    out = settings.out()
    for words in untold:
        out.print(f"[warn]![/] {escape(words)}")
    out.print(f'[good]Done.[/] "{escape(database)}" is served by {escape(adoption.serving)}.')
    out.print("[next]→ hybridrag plan[/]")


def _placement(world: World, serving: tuple[str, ...]) -> dict[Slot, str]:
    """The backend of each slot. Raises NotFound for a backend, PlanRefused for slots, that do not fit."""
    from hybridrag.model.data import Slot

    whole = [value for value in serving if "=" not in value]
    named = dict(value.split("=", 1) for value in serving if "=" in value)
    if unknown := sorted(named.keys() - {slot.value for slot in Slot}):
        raise PlanRefused(
            f'"{unknown[0]}" is no slot; there are: {", ".join(slot.value for slot in Slot)}',
            hint="hybridrag adopt --help",
        )
    if len(whole) > 1:
        raise PlanRefused("only one backend can serve all slots", hint="say the others as SLOT=BACKEND")
    found = {slot: named.get(slot.value, whole[0] if whole else "") for slot in Slot}
    if missing := [slot.value for slot, name in found.items() if not name]:
        raise PlanRefused(
            f"nothing is said of the {' and '.join(missing)} slot", hint="give --serving BACKEND for the rest"
        )
    for name in found.values():
        world.backend(name)  # raises NotFound, listing what there is
    return found


def _show(settings: Settings, adoption: Adoption) -> None:
    out = settings.out()
    database = escape(adoption.item.database)
    out.print(
        f'"{database}" is noted as served by {escape(adoption.serving)} ({adoption.records:,} records there).'
    )
    for kept in adoption.kept:
        out.print(f"  {escape(kept.backend)} is kept as a way back")


def _json(adoption: Adoption) -> dict[str, object]:
    return {
        "database": adoption.item.database,
        "serving": {slot.value: name for slot, name in adoption.placement.items()},
        "records": adoption.records,
        "kept": [kept.backend for kept in adoption.kept],
    }
