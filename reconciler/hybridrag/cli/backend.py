"""`hybridrag backend start`, `hybridrag backend stop`: the servers that this tool provisions."""

from __future__ import annotations

import asyncio

import click

from .common import Settings, command_options


@click.group()
def backend() -> None:
    """Start and stop the servers that hybridrag provisions."""


def _tell(settings: Settings, name: str, state: str) -> None:
    if settings.json:
        settings.print_json({"backend": name, "state": state})
    else:
        settings.out().print(f"backend {name} is {state}")


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
