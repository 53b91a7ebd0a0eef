"""`hybridrag status`, `hybridrag health`, `hybridrag verify`: look, write nothing."""

from __future__ import annotations

import asyncio

import click

from .common import Settings, command_options


@click.command()
@click.argument("databases", nargs=-1, metavar="[DB]...")
@click.option(
    "--exit-code", is_flag=True, help="Exit 2 when a database or a backend is not healthy, 0 when all are."
)
@command_options
def status(settings: Settings, databases: tuple[str, ...], exit_code: bool) -> None:
    """What each database uses now: backend, records, size, health.

    Exit codes: 0, 2 something is not healthy (with --exit-code), 3 spec or registry invalid, 6 not found.
    """
    from hybridrag.engine import status as look
    from hybridrag.render.status_json import status_json
    from hybridrag.render.status_text import show_status

    env = settings.environment()
    found = asyncio.run(look(env.world, databases))
    if settings.json:
        settings.print_json(status_json(found))
    else:
        show_status(settings.out(), found)
    if exit_code and not found.healthy:
        raise click.exceptions.Exit(2)


@click.command()
@command_options
def health(settings: Settings) -> None:
    """Every backend at once."""
    from hybridrag.api import connect
    from hybridrag.render.status_text import show_health

    env = settings.environment()

    async def ask() -> dict[str, object]:
        async with connect(env) as backends:
            return await backends.health()

    report = asyncio.run(ask())
    if settings.json:
        settings.print_json(report)
    else:
        show_health(settings.out(), report)
    if not report["healthy"]:
        raise click.exceptions.Exit(4)


@click.command()
@click.argument("database")
@command_options
def verify(settings: Settings, database: str) -> None:
    """Compare a database with what it was moved from: record by record both ways, what records say of one another,
    and which vectors its engine finds nearest. Writes nothing.

    After the switch, what was written since is no difference: it is told apart from what was lost, or is extra.

    Exit codes: 0 equal, 3 spec or registry invalid, 4 a backend or a file cannot be used, 6 not found, or nothing to
    compare with, 7 something differs, 8 interrupted (run it again).
    """
    from hybridrag.actions.verify import failed
    from hybridrag.engine import verify_database
    from hybridrag.engine.unsound import unsound
    from hybridrag.errors import Interrupted
    from hybridrag.render.run_text import RunDisplay
    from hybridrag.render.verify_report import show_verified, verify_json

    env = settings.environment()
    with RunDisplay(settings.out(to_stderr=True), quiet=settings.quiet or settings.json) as display:
        try:
            report, examination = asyncio.run(verify_database(env.world, database, display.on_event))
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; nothing was written", hint=f"hybridrag verify {database} begins anew"
            ) from None
    if settings.json:
        settings.print_json(verify_json(database, report, examination))
    if not report.equal:
        raise unsound(database, report) if report.serves else failed(database, report)
    if not settings.json:
        show_verified(settings.out(), report, examination)
