"""The figures as text: a line on the terminal, and `docs/reliability.md`, which only this writes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .experiment import Experiment, Found

HEAD = """\
# What was tried to break it, and what broke

May this tool be trusted with a database? Each section is one promise, how somebody tried to make it break it, how often, and
what came of it, with the command that does the same again. All of it runs on real parts: real Postgres servers, real
files, real processes that are really killed. "Broken" counts what did not go as promised, not only losses.

Written by `make proof`, never by hand. A promise that was not tried at length has no section here.
Seconds are those of one machine that may have had other work. "For comparison" says what well-known tools measured, or
admit about themselves.
"""
FAULT = 300
"""Characters of a fault that are published."""
PROMISES = {
    1: "A kill never corrupts anything",
    2: "A kill never loses or doubles a record",
    3: "Verification sees every difference",
    4: "Looking writes nothing",
    5: "A stale plan is refused",
    6: "It converges",
    7: "One winner",
    8: "No secret leaks",
    9: "A bad network costs time only",
    10: "A full or failing disk costs nothing",
    11: "Bad input gets an answer in words",
    12: "Estimates are honest",
    13: "A database that is in use can be moved",
    14: "The watcher loses no document",
    15: "The state folder may be lost",
    16: "The embedding is a fact",
}


def figures_of(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in found["figures"].items())


def _value(value: Any) -> str:
    return (
        f"{value:,.2f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def table(rows: Sequence[tuple[Experiment, Found]]) -> str:
    """A few lines for a terminal."""
    lines = []
    for experiment, found in rows:
        mark = "✗" if found.faults else "✓"
        lines.append(
            f"{mark} {experiment.number:>2} {experiment.name}: {found.runs} runs, {found.faults} broken, {found.seconds:.0f} s"
            f"  {figures_of(found.as_dict())}"
        )
        lines += [f"     {fault}" for fault in found.listed]
    return "\n".join(lines)


def keep(results: Path, report: Path, known: Sequence[Experiment], name: str, found: Found) -> None:
    """Put one result beside those of other experiments, which may be running in other processes, and write the report anew."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(results.parent):
        kept = json.loads(results.read_text("utf-8")) if results.exists() else {}
        kept[name] = found.as_dict()
        _replace(results, json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        _replace(report, text(known, kept))


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with its holder."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _replace(path: Path, content: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(content, encoding="utf-8")
    new.replace(path)


def text(known: Sequence[Experiment], kept: Mapping[str, Mapping[str, Any]]) -> str:
    """The report of all results that were kept: a table of contents, then a section for each promise."""
    told = [(experiment, kept[experiment.name]) for experiment in known if experiment.name in kept]
    written = HEAD + "\n| promise | tried | broken |\n|---|---:|---:|\n"
    for experiment, found in told:
        written += (
            f"| [{experiment.promise}](#{experiment.name}) | {found['runs']:,} | {found['faults']:,} |\n"
        )
    heading = None
    for experiment, found in told:
        if heading != (heading := PROMISES[experiment.number]):
            written += f"\n## {heading}\n"
        written += _section(experiment, found)
    return written


def _section(experiment: Experiment, found: Mapping[str, Any]) -> str:
    broken = f"**{found['faults']:,} broken**" if found["faults"] else "none broken"
    lines = [
        f"- **Result**: {found['runs']:,} runs, {broken}.",
        f"- **Tried**: {experiment.tried}.",
        f"- **Figures**: {figures_of(found)}." if found["figures"] else "",
        f"- **For comparison**: {experiment.baseline}." if experiment.baseline != "—" else "",
        f"- **Again**: `{found['command']}` (on {found['date']}: {_duration(found['seconds'])})",
        *(f"- **Broke**: {' '.join(fault.split())[:FAULT]}" for fault in found["listed"]),
    ]
    shown = "\n".join(line for line in lines if line)
    return f'\n<a id="{experiment.name}"></a>\n\n### {experiment.promise[0].upper()}{experiment.promise[1:]}\n\n{shown}\n'


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return (
        f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if not hours else f"{hours} h {minutes} min"
    )
