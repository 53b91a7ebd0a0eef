"""`hybridrag rollback DB`: back to what served before, with what was written since or without it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from hybridrag.errors import HybridragError, NotFound, PlanRefused

from .apply import tell_settings
from .common import Settings, command_options, locating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hybridrag.engine import World
    from hybridrag.engine.kept import Kept
    from hybridrag.model.wanted import Wanted

    from .spec_change import SpecChange


@click.command()
@click.argument("database", metavar="DB")
@click.option(
    "--discard-new", is_flag=True, help="Leave behind what was written since; only the registry changes."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done and write nothing.")
@click.option("--yes", "--auto-approve", "yes", is_flag=True, help="Do not ask on a terminal.")
@command_options
def rollback(settings: Settings, database: str, discard_new: bool, dry_run: bool, yes: bool) -> None:
    """Go back to the backend that served before the last switch, and say so in the spec.

    Everything that was written since is carried over and compared record by record, as migrate does it. With
    --discard-new it stays where it is, and the kept data serves as it was left. Rolling back twice is back where
    it began. What was cut off is finished by hybridrag apply.

    Exit codes: 0, 4 a backend or a file cannot be used, 5 refused, 6 nothing to go back to, 7 verification failed,
    8 interrupted with a checkpoint saved, 9 an apply runs.
    """
    from hybridrag.engine.kept import way_back
    from hybridrag.spec import SpecFiles

    from .spec_change import SpecChange

    change = SpecChange(lambda: SpecFiles(settings.paths()))
    before = locating(settings.assembled(change.spec)).world
    item = before.database(database)
    back = way_back(before, item)
    _put(change, before, item, back)
    world = locating(settings.assembled(change.tried())).world
    if discard_new:
        _discard(settings, change, world, database, back, dry_run=dry_run, yes=yes)
    else:
        _carry_over(settings, change, world, database, back, dry_run=dry_run, yes=yes)


def _put(change: SpecChange, world: World, item: Wanted, back: Sequence[Kept]) -> None:
    """The spec names the kept backends; files that it does not declare are declared."""
    from hybridrag.engine.kept import placement_after

    from .backend_choice import choose

    named = placement_after(world, item, back)
    spec = change.spec
    names: dict[str, str] = {}
    for slot, name in named.items():
        shown = next((each.backend for each in back if slot in each.slots), world.holder(name).name)
        if shown not in spec.environment.backends:
            if name != "json":
                raise NotFound(
                    f'database "{item.database}": it would go back to backend "{shown}", which is not in the spec',
                    hint=f'declare "{shown}" below backends again',
                )
            choice = choose(spec, "json", connecting=False)
            if choice.type is not None and choice.name not in names.values():
                change.put("backends", choice.name, value={"type": choice.type})
            shown = choice.name
        names[slot.value] = shown
    value: Any = names if len(set(names.values())) > 1 else next(iter(names.values()))
    wanted = spec.environment.databases[item.database].placement()
    if {slot.value: held for slot, held in wanted.items()} != names:
        change.put_placement(item.database, value)


def _shown(back: Sequence[Kept]) -> str:
    return " and ".join(each.shown for each in back)


def _carry_over(
    settings: Settings,
    change: SpecChange,
    world: World,
    database: str,
    back: Sequence[Kept],
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    from hybridrag.model.plan import NEEDS_CONSENT, HazardKind

    from .migrate import Job, carry_out, planned_for, refuse_incomplete, show

    planned = planned_for(world, database)
    source = "mixed" if len({b.type for b in world.serving(world.database(database)).values()}) > 1 else None
    serving = source or next(iter(world.serving(world.database(database)).values())).type
    job = Job(database, serving, world.database(database).backend_type)
    if dry_run or not (settings.json or settings.quiet):
        show(settings, planned, [HazardKind.REPLACE_KEPT])
        _warn(settings, database, back)
    if dry_run:
        return
    refuse_incomplete(planned, database)
    costs = any(hazard.kind in NEEDS_CONSENT for hazard in planned.plan.hazards)
    if planned.plan.steps or change.files:
        _ask(settings, f'Move "{database}" back to {_shown(back)}?', yes=yes, needed=costs)
    try:
        report = carry_out(settings, change, planned, job, allowed=[HazardKind.REPLACE_KEPT])
    except HybridragError as error:
        if settings.json:
            settings.print_json(job.failed(error, world, planned))
        raise
    if settings.json:
        settings.print_json(job.done(report))
        return
    out = settings.out()
    if report is not None:
        out.print(
            f'\n[good]Done[/] in {report.seconds:.1f} s. "{database}" is served by {_shown(back)} again.'
        )
        tell_settings(settings, world, [database])
    _commit(settings, change)


def _warn(settings: Settings, database: str, back: Sequence[Kept]) -> None:
    for each in back:
        if each.left_behind and not settings.json:
            settings.out().print(
                f"[warn]![/] {each.shown} holds records that an earlier --discard-new left behind; they are replaced. "
                f"To serve them again instead: [next]hybridrag rollback {database} --discard-new[/]"
            )


def _discard(
    settings: Settings,
    change: SpecChange,
    world: World,
    database: str,
    back: Sequence[Kept],
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    from hybridrag.engine.discarding import plan_discard

    from .apply import run_plan

    discard = asyncio.run(plan_discard(world, world.database(database), back))
    told = {"database": database, "to": _shown(back), "left_behind": list(discard.words)}
    out = settings.out()
    if not settings.json and not settings.quiet:
        out.print(f'"{database}" goes back to {_shown(back)} as it was left:')
        for words in discard.words:
            out.print(f"  [warn]![/] {words}")
    if dry_run:
        if settings.json:
            settings.print_json({"dry_run": True, **told})
        return
    _ask(settings, f'Leave that behind and let {_shown(back)} serve "{database}"?', yes=yes, needed=True)
    change.write()
    try:
        after = locating(settings.assembled(change.written())).world
        run_plan(settings, after, discard.planned, [])
    except BaseException:
        if not _points_back(world, database):
            change.undo()
        raise
    if settings.json:
        settings.print_json({"outcome": "done", **told})
        return
    out.print(
        f'\n[good]Done.[/] "{database}" is served by {_shown(back)} again; what was left behind is kept.'
    )
    tell_settings(settings, world, [database])
    _commit(settings, change)


def _points_back(world: World, database: str) -> bool:
    """Whether the registry names what the changed spec wants."""
    item = world.database(database)
    with contextlib.suppress(HybridragError):
        serving = world.serving(item)
        return all(serving[slot].name == place.name for slot, place in item.placement.items())
    return True


def _ask(settings: Settings, question: str, *, yes: bool, needed: bool) -> None:
    """On a terminal; elsewhere the command is the approval unless it costs something that must be named."""
    if yes:
        return
    if not settings.json and sys.stdin.isatty():
        if not click.confirm(f"\n{question}", default=False, err=True):
            raise PlanRefused("not approved; nothing was done")
    elif needed:
        raise PlanRefused(
            "this gives something up, and nobody can be asked here",
            hint="look at it with --dry-run, then: --yes",
        )


def _commit(settings: Settings, change: SpecChange) -> None:
    if change.files:
        settings.out().print(f"{', '.join(change.files)} says so now: commit it.")
