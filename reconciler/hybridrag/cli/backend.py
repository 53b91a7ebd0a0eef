"""`hybridrag backend status`: what a database uses; `start`, `stop`: the servers that this tool provisions."""

from __future__ import annotations

import asyncio

import click

from .common import Settings, command_options


@click.group()
def backend() -> None:
    """See what a database uses; start and stop the servers that hybridrag provisions."""


def _tell(settings: Settings, name: str, state: str) -> None:
    if settings.json:
        settings.print_json({"backend": name, "state": state})
    else:
        settings.out().print(f"backend {name} is {state}")


@backend.command()
@click.argument("database", required=False, metavar="[DB]")
@click.option("--verbose", is_flag=True, help="Counts of everything LightRAG stores.")
@command_options
def status(settings: Settings, database: str | None, verbose: bool) -> None:
    """Sizes, counts, health and latency of a database, and whether it should move; without DB, of all.

    Exit codes: 0 ok, 1 database not found, 2 backend connection failed.
    """
    from hybridrag.engine import status as look
    from hybridrag.errors import NotFound
    from hybridrag.render.status_contract import database_json
    from hybridrag.render.status_one import show_database

    world = settings.environment().world
    try:
        found = asyncio.run(look(world, [database] if database else [])).databases
    except NotFound as error:
        error.exit_code = 1  # the command contract's own
        raise
    if settings.json:
        made = [database_json(item, verbose=verbose) for item in found]
        settings.print_json(made[0] if database else {"databases": made})
    for number, item in enumerate(() if settings.json else found):
        settings.out().print("\n" if number else "", end="")
        show_database(settings.out(), item, verbose=verbose)
    if any(item.health == "error" for item in found):
        raise click.exceptions.Exit(2)


@backend.command()
@click.argument("name")
@command_options
def start(settings: Settings, name: str) -> None:
    """Start a provisioned server; twice is once."""
    asyncio.run(settings.environment().world.backend(name).start())
    _tell(settings, name, "running")


@backend.command()
@click.argument("name")
@command_options
def stop(settings: Settings, name: str) -> None:
    """Stop a provisioned server; its data stays."""
    asyncio.run(settings.environment().world.backend(name).stop())
    _tell(settings, name, "stopped")
