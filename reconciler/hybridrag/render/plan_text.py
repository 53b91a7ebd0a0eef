"""The plan for people."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.markup import escape

from hybridrag.model.plan import NEEDS_CONSENT, HazardKind, Plan

from .units import duration, plural, size

_SYMBOLS = {"provision": "+", "migrate": "~", "switch": "~"}


def show_plan(
    out: Console, plan: Plan, *, told_next: str | None = None, allowed: Collection[HazardKind] = ()
) -> None:
    """Steps in order, each with its reason, size, estimate and hazards; a summary; what to run next.

    `allowed` are hazards that need no more consent.
    """
    out.print(f"Environment [verb]{escape(plan.environment)}[/]")
    for name in plan.in_place:
        out.print(f"  [good]=[/] {escape(name)} is where the spec wants it")
    if plan.empty:
        for warning in plan.warnings:
            out.print(f"\n  [warn]warning[/]: {escape(warning)}")
        said = "Nothing to move." if plan.warnings else "No changes."
        out.print(f"\n[good]{said}[/] Every database is on the backend that the spec names.")
        return
    out.print("")
    width = max(len(step.verb) for step in plan.steps)
    for step in plan.steps:
        symbol = _SYMBOLS.get(step.verb, "·")
        measure = []
        if step.bytes is not None and step.verb == "migrate":
            measure.append(size(step.bytes))
        if step.estimate_s is not None:
            measure.append(f"about {duration(max(step.estimate_s, 0.1))}")
        tail = f"  [soft]({', '.join(measure)})[/]" if measure else ""
        out.print(f"  {symbol} [verb]{step.verb:<{width}}[/]  {escape(step.summary)}{tail}")
        out.print(f"    {'':<{width}}  [soft]because {escape(step.reason)}[/]")
        for hazard in step.hazards:
            out.print(f"    {'':<{width}}  [warn]! {hazard.kind.value}[/]: {escape(hazard.detail)}")
    for warning in plan.warnings:
        out.print(f"\n  [warn]warning[/]: {escape(warning)}")
    records = sum(step.records or 0 for step in plan.steps if step.verb == "migrate")
    total = sum(step.estimate_s or 0 for step in plan.steps)
    out.print(
        f"\n[verb]Plan:[/] {plural(len(plan.steps), 'step')}, {plural(len(plan.moves), 'database')} to move, "
        f"{plural(records, 'record')}, about {duration(total)}. No embedding and no LLM call."
    )
    kinds = {hazard.kind for hazard in plan.hazards} & NEEDS_CONSENT - set(allowed)
    if kinds:
        options = " ".join(f"--allow {kind.value}" for kind in sorted(kinds))
        out.print(f"[warn]needs consent[/]: hybridrag apply {options}")
    if told_next is not None:
        out.print(f"[next]→ {escape(told_next)}[/]")
