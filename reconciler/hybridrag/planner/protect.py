"""`lifecycle.prevent_destroy`: no plan replaces a server that such a database is on, or is to go to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hybridrag.errors import PlanRefused
from hybridrag.model.facts import Facts
from hybridrag.model.wanted import Wanted

Kept = Mapping[str, str]
"""Backends whose server must stay, each with a database that says so."""


def kept_by(databases: Iterable[tuple[Wanted, set[str]]]) -> dict[str, str]:
    """`databases`: each with the backends that serve it now."""
    return {
        backend: item.database
        for item, serving in databases
        if item.prevent_destroy
        for backend in {place.name for place in item.places} | serving
    }


def refuse_replaced(backend: str, server: Facts, kept: Kept) -> None:
    """Raises PlanRefused where a server that must stay would be replaced, or would leave data behind."""
    leaves = server.get("leaves")
    if backend not in kept or not (leaves or server.get("change") == "replace"):
        return
    database = kept[backend]
    differs = f" ({server['differs']})" if server.get("differs") else ""
    would = f"would be replaced{differs}" + (f", and {leaves}" if leaves else "")
    raise PlanRefused(
        f'backend "{backend}": its server {would}; database "{database}" forbids it by lifecycle.prevent_destroy',
        hint=f"set backends.{backend}.provision back to what runs; if it is meant, "
        f"databases.{database}.lifecycle.prevent_destroy: false, then run hybridrag plan",
    )
