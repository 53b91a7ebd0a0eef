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

Written by `make proof`, never by hand. Each line is one promise, how it was tried, in how many runs, and how many of them
broke it; the last column is what comparable tools measured or admit about themselves. A figure that was not run is not here.

| # | promise | runs | broken | figures | tried by | date, command | for comparison |
|---|---|---|---|---|---|---|---|
"""


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
    """The report of all results that were kept."""
    written = HEAD
    for experiment in known:
        if (found := kept.get(experiment.name)) is None:
            continue
        written += (
            f"| {experiment.number} | {experiment.promise} | {found['runs']:,} | **{found['faults']}** | {figures_of(found)} "
            f"| {experiment.tried} | {found['date']}, `{found['command']}` ({found['seconds']:.0f} s) | {experiment.baseline} |\n"
        )
    return written
