"""`hybridrag validate`, `hybridrag plan`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from .common import Settings, command_options

if TYPE_CHECKING:
    from hybridrag.api import Environment


@click.command()
@command_options
def validate(settings: Settings) -> None:
    """Check the spec; no network."""
    env = settings.environment()
    warnings = _warnings(env)
    if settings.json:
        told = {"valid": True, "digest": env.spec.digest, "databases": list(env.world.wanted)}
        settings.print_json({**told, **({"warnings": warnings} if warnings else {})})
        return
    names = ", ".join(env.world.wanted) or "none"
    settings.out().print(f"[good]valid[/]: environment {env.world.environment}, databases: {names}")
    for warning in warnings:
        settings.out().print(f"[warn]warning[/]: {escape(warning)}")


def _warnings(env: Environment) -> list[str]:
    """What does not make a spec wrong, but its writers' files are worth a look."""
    from hybridrag.adapters.env_file import complaints

    found = []
    for name, database in env.spec.environment.databases.items():
        if (file := getattr(database.writer, "env_file", None)) is not None:
            found += complaints(env.spec.resolve(file), f"databases.{name}.writer.env_file")
    return found


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="Save the plan for `apply FILE`."
)
@click.option("--target", "targets", multiple=True, metavar="DB", help="Only this database (repeatable).")
@click.option("--exclude", multiple=True, metavar="DB", help="All but this database (repeatable).")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit 2 when changes are pending, 0 when there are none."
)
@command_options
def plan(
    settings: Settings,
    out: str | None,
    targets: tuple[str, ...],
    exclude: tuple[str, ...],
    detailed_exitcode: bool,
) -> None:
    """Show what apply would do; writes nothing.

    Exit codes: 0, 2 changes pending (with --detailed-exitcode), 3 spec or registry invalid, 4 a backend or a file cannot
    be used, 5 no plan is possible, 6 not found.
    """
    from hybridrag import __version__
    from hybridrag.engine import plan_world
    from hybridrag.engine.history import forgotten
    from hybridrag.planner import save, to_file
    from hybridrag.render.plan_text import show_plan

    env = settings.environment()
    planned = asyncio.run(plan_world(env.world, targets, exclude))
    file = to_file(
        planned.plan,
        planned.observation,
        tool_version=__version__,
        spec_files=env.world.spec_files,
        databases=tuple(item.database for item in planned.items),
    )
    if out:
        save(file, Path(out))
    if (warning := forgotten(env.world)) is not None:
        settings.out(to_stderr=True).print(f"[warn]warning[/]: {escape(warning)}")
    if settings.json:
        settings.print_json(file.model_dump(mode="json"))
    else:
        show_plan(settings.out(), planned.plan, told_next=f"hybridrag apply {out or ''}".rstrip())
    if detailed_exitcode and not planned.plan.empty:
        raise click.exceptions.Exit(2)
