"""Status and health for people; `status_json.py` has the machine form, `status_one.py` one database in full."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hybridrag.engine import Status
from hybridrag.engine.status import BackendStatus, DatabaseStatus

from .status_words import count, kept_words, migration_words, size_remark, way_out
from .units import size
from .watch_words import forecast_words, slow_words, state_words

STYLES = {"healthy": "good", "degraded": "warn", "error": "bad"}
_FOLLOWING = {
    "running": ("good", ""),
    "interrupted": ("warn", "  [next]→ hybridrag apply[/] goes on"),
    "failed": ("bad", "  [next]→ hybridrag plan[/]"),
}
COUNTS = (
    ("doc_status", "documents"),
    ("entities", "entities"),
    ("relationships", "relations"),
    ("chunks", "chunks"),
)


def show_status(out: Console, status: Status) -> None:
    """Databases, what is the matter with them, backends, the last run."""
    out.print(f"Environment [verb]{escape(status.environment)}[/]\n")
    if status.databases:
        _table(out, status)
    told = [(database, line) for database in status.databases for line in remarks(database)]
    for index, (database, line) in enumerate(told):
        out.print(f"{'' if index else chr(10)}[verb]{escape(database.database)}[/]  {line}")
    out.print("\nBackends")
    for backend in status.backends:
        out.print(f"  {_backend_line(backend)}")
    for warning in status.warnings:
        out.print(f"[warn]warning[/]: {escape(warning)}")
    if status.last_run is not None:
        run = status.last_run
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
        outcome = run.outcome or ("running" if status.running else "killed")
        out.print(f"\nLast run {run.id} by {escape(run.who)}, {when}: {outcome}")
    if not status.running:
        for name in status.paused:
            out.print(f'[warn]warning[/]: a killed run left "{escape(name)}" paused; hybridrag apply goes on')


def _table(out: Console, status: Status) -> None:
    table = Table(box=None, pad_edge=False, header_style="soft")
    for title in ("database", "backend", "status"):
        table.add_column(title, overflow="fold")
    for title in (*(title for _, title in COUNTS), "size"):
        table.add_column(title, justify="right", overflow="fold")
    for item in status.databases:
        known = {name: count(item, name) if item.records else "-" for name, _ in COUNTS}
        table.add_row(
            f"[verb]{escape(item.database)}[/]",
            escape(item.backend),
            f"[{STYLES[item.health]}]{item.health}[/]",
            *known.values(),
            size(item.size) if item.size is not None and item.backend_type == "json" else "-",
        )
    out.print(table, soft_wrap=False)


def remarks(database: DatabaseStatus, *, sizes: bool = True) -> list[str]:
    """What a user should know of a database beside its numbers, in markup, with the next command."""
    found = [f"[{STYLES[database.health]}]{escape(problem)}[/]" for problem in database.problems]
    if database.hint:
        found.append(f"[next]→ {escape(database.hint)}[/]")
    if database.migration is not None:
        style, following = _FOLLOWING[database.migration.state]
        found.append(f"[{style}]{escape(migration_words(database.migration))}[/]{following}")
    elif database.wanted != database.backend:
        found.append(f"[warn]the spec wants {escape(database.wanted)}[/]  [next]→ hybridrag plan[/]")
    # Where the data of today cannot be used, what is kept may be all that is left; plan tells whether it is gone or only away.
    command = "plan" if database.health == "error" else f"retire {database.database}"
    if database.problems and database.health != "error":
        command = f"drift {database.database}"  # what is kept may be needed to repair it
    found += [
        f"[soft]{escape(kept_words(each))}[/]  [next]→ hybridrag {escape(command)}[/]"
        for each in database.kept
    ]
    found += _watcher_remarks(database)
    if sizes and database.oversized:
        found.append(f"[warn]{escape(size_remark(database))}[/]  [next]→ {escape(way_out(database))}[/]")
    return found


def _watcher_remarks(database: DatabaseStatus) -> list[str]:
    """The daemon's state, its warnings beside those about sizes, and what is coming."""
    watcher = database.watcher
    if watcher is None:
        return []
    style = (
        "soft" if watcher.state in ("idle", "ingesting", "starting", "stopped", "never started") else "warn"
    )
    found = [f"[{style}]{escape(state_words(watcher))}[/]"]
    if not watcher.running:
        found[0] += f"  [next]→ hybridrag watch start {escape(database.database)}[/]"
    told = (slow_words(watcher), forecast_words(watcher))
    return found + [f"[warn]{escape(words)}[/]" for words in told if words]


def _backend_line(backend: BackendStatus) -> str:
    facts, details = backend.facts, backend.details
    line = f"[verb]{escape(backend.name)}[/] {escape(backend.type)}"
    if facts.get("provision"):
        line += f" ({escape(str(facts['provision']))})"
    if not facts.get("reachable"):
        return f"{line}  [bad]{escape(str(facts.get('problem')))}[/]"
    told = (
        [f"[good]reachable[/] in {details['latency_ms']} ms"] if details.get("latency_ms") is not None else []
    )
    told += map(escape, backend.words)
    if facts.get("port"):
        told.append(f"port {facts['port']}")
    if details.get("pid"):
        told.append(f"pid {details['pid']}")
    if details.get("bytes") is not None:
        told.append(size(float(details["bytes"] or 0)))
    return f"{line}  {', '.join(told)}" if told else f"{line}  [good]reachable[/]"


def show_health(out: Console, report: Mapping[str, Any]) -> None:
    """One line a backend: healthy or not, how long connecting took, version, what is wrong."""
    table = Table(box=None, pad_edge=False, header_style="soft")
    for title in ("backend", "health", "latency", "version", "detail"):
        table.add_column(title, overflow="fold")
    for name, entry in report.items():
        if not isinstance(entry, dict):
            continue  # the verdict on all of them
        latency, version = entry["latency_ms"], entry["version"]
        table.add_row(
            f"[verb]{escape(name)}[/]",
            "[good]healthy[/]" if entry["healthy"] else "[bad]unhealthy[/]",
            "-" if latency is None else f"{latency} ms",
            "-" if version is None else escape(str(version)),
            f"[bad]{escape(str(entry['detail']))}[/]" if entry["detail"] else "",
        )
    out.print(table, soft_wrap=False)
