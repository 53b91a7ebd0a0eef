"""`hybridrag status`, `hybridrag health`, `hybridrag verify`: look, write nothing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click
from rich.markup import escape

from .common import Settings, command_options


@click.command()
@click.argument("databases", nargs=-1, metavar="[DB]...")
@command_options
def status(settings: Settings, databases: tuple[str, ...]) -> None:
    """What each database uses now: backend, records, size, health."""
    from hybridrag.engine import status as look
    from hybridrag.render.status_json import status_json
    from hybridrag.render.status_text import show_status

    env = settings.environment()
    found = asyncio.run(look(env.world, databases))
    if settings.json:
        settings.print_json(status_json(found))
    else:
        show_status(settings.out(), found)


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
    """Compare a database's JSON files with its backend again, record by record, both ways."""
    from hybridrag.actions.verify import failed
    from hybridrag.engine import verify_database
    from hybridrag.render.run_text import RunDisplay

    env = settings.environment()
    with RunDisplay(settings.out(to_stderr=True), quiet=settings.quiet or settings.json) as display:
        report, examination = asyncio.run(verify_database(env.world, database, display.on_event))
    if settings.json:
        listed = [asdict(difference) for difference in report.listed]
        counts = {"missing": report.missing, "extra": report.extra, "different": report.different}
        settings.print_json({"database": database, "equal": report.equal, "records": report.records, **counts,
                             "refused": examination.refused_total, "differences": listed,
                             "broken_rules": report.broken_rules,
                             "recall": None if report.recall is None else round(report.recall.share, 4)})  # fmt: skip
    if not report.equal:
        raise failed(database, report)
    if not settings.json:
        settings.out().print(f"[good]equal[/]: {report.records:,} records, 0 missing, 0 extra, 0 different")
        if report.recall is not None:
            settings.out().print(f"[{'warn' if report.recall.remedy else 'good'}]index[/]: {report.recall}")
        if examination.refused_total:
            name, key, reason = examination.refused[0]
            settings.out().print(
                f"[warn]![/] {examination.refused_total:,} records of the source cannot be held there and were left out; "
                f'the first: {escape(name)} "{escape(key)}": {escape(reason)}'
            )
