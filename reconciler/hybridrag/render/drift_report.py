"""What `hybridrag drift` found: for people, and as JSON (`schemas/drift.schema.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from hybridrag.engine.drifting import Drift
from hybridrag.model.strict import Strict

from .units import plural
from .verify_report import since_json


class MovedOut(Strict):
    """One stream since the last apply. `vectors_gone` and `vectors_changed`: of records that are there otherwise."""

    written: int
    changed: int
    removed: int
    lost: int
    vectors_gone: int
    vectors_changed: int
    extra: int


class DriftOut(Strict):
    """One database. `compared`: record by record, with a kept copy; `streams` is empty otherwise."""

    database: str
    backend: str
    drifted: bool
    compared: bool
    written: tuple[str, ...]
    damaged: tuple[str, ...]
    streams: dict[str, MovedOut]
    next: str | None


class DriftsOut(Strict):
    """The whole answer."""

    version: Literal[1]
    environment: str
    databases: tuple[DriftOut, ...]


def drift_json(environment: str, found: Sequence[Drift]) -> dict[str, Any]:
    made = DriftsOut.model_validate(
        {
            "version": 1,
            "environment": environment,
            "databases": [
                {
                    "database": each.database,
                    "backend": each.backend,
                    "drifted": bool(each.damaged),
                    "compared": each.compared,
                    "written": each.written,
                    "damaged": each.damaged,
                    "streams": since_json(each.since),
                    "next": each.hint if each.damaged else None,
                }
                for each in found
            ],
        }
    )
    return made.model_dump(mode="json")


def show_drift(out: Console, found: Sequence[Drift]) -> None:
    """A line for each database, what is damaged with the next command, a count."""
    width = max((len(each.database) for each in found), default=0)
    for each in found:
        name = escape(each.database.ljust(width))
        if each.damaged:
            out.print(f"  [bad]![/] {name}   {escape('; '.join(each.damaged))}")
            if each.written:
                out.print(f"    {' ' * width}   {escape('; '.join(each.written))}")
            if each.hint:
                out.print(f"    {' ' * width}   [next]→ {escape(each.hint)}[/]")
            continue
        words = "; ".join(each.written) or (
            "as it was left by the last apply" if each.compared else "nothing is kept to compare it with"
        )
        out.print(f"  [good]=[/] {name}   {escape(words)}")
    drifted = sum(bool(each.damaged) for each in found)
    out.print(f"{drifted} of {plural(len(found), 'database')} drifted.")
