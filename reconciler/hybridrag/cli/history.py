"""`hybridrag history`, `hybridrag show RUN`: what was done, by whom, and how it ended. They write nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from .common import Settings, command_options

if TYPE_CHECKING:
    from hybridrag.journal import RunRecord


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _as_json(run: RunRecord, open_ended: str) -> dict[str, Any]:
    return {
        "run": run.id,
        "who": run.who,
        "started": run.started,
        "finished": run.finished,
        "outcome": run.outcome or open_ended,
        "error": run.error,
    }


@click.command()
@click.option("-n", "limit", type=click.IntRange(1), default=20, show_default=True, help="That many runs.")
@command_options
def history(settings: Settings, limit: int) -> None:
    """The runs of the environment, the newest first.

    Exit codes: 0, 1 the journal cannot be read, 3 spec invalid.
    """
    from hybridrag.engine.history import history as runs_of
    from hybridrag.engine.history import lease_of
    from hybridrag.render.units import duration

    world = settings.environment().world
    found = runs_of(world, limit)
    open_ended = "running" if lease_of(world) is not None else "killed"
    if settings.json:
        settings.print_json([_as_json(run, open_ended) for run in found])
        return
    out = settings.out()
    for run in found:
        took = "" if run.finished is None else f" in {duration(run.finished - run.started)}"
        why = f": {run.error}" if run.error else ""
        out.print(
            f"[verb]{escape(run.id)}[/]  {_when(run.started)}  {escape(run.who)}  "
            f"{escape(run.outcome or open_ended)}{took}{escape(why)}",
            soft_wrap=True,
        )
    if not found:
        out.print(f"Nothing was done to environment {escape(world.environment)} yet.")


@click.command()
@click.argument("run", metavar="RUN")
@command_options
def show(settings: Settings, run: str) -> None:
    """One run with its steps; RUN is its id, or the beginning of it.

    Exit codes: 0, 1 the journal cannot be read, 3 spec invalid, 6 no such run.
    """
    from hybridrag.engine.history import lease_of, show_run
    from hybridrag.render.units import duration

    world = settings.environment().world
    detail, steps = show_run(world, run)
    record = detail.record
    open_ended = "running" if lease_of(world) is not None else "killed"
    if settings.json:
        settings.print_json(
            {
                **_as_json(record, open_ended),
                "spec_digest": detail.spec_digest,
                "observation_digest": detail.observation_digest,
                "steps": [
                    {
                        "step": step.step,
                        "started": step.started,
                        "finished": step.finished,
                        "outcome": step.outcome or open_ended,
                        "detail": step.detail,
                    }
                    for step in steps
                ],
            }
        )
        return
    out = settings.out()
    out.print(f"Run [verb]{escape(record.id)}[/] by {escape(record.who)}, {_when(record.started)}")
    out.print(
        f"  spec {escape(detail.spec_digest)}, observed {escape(detail.observation_digest or 'nothing')}"
    )
    for step in steps:
        took = "" if step.finished is None else f" ({duration(step.finished - step.started)})"
        told = f"{step.step}  {step.outcome or open_ended}{took}  {step.detail or ''}".rstrip()
        out.print(f"  {escape(told)}", soft_wrap=True)
    ended = record.outcome or open_ended
    out.print(escape(f"{ended}: {record.error}" if record.error else ended), soft_wrap=True)
