"""Status for people; `status_json.py` has the machine form."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape

from hybridrag.engine import Status
from hybridrag.engine.status import BackendStatus, DatabaseStatus

from .units import size

_COUNTS = (
    ("full_docs", "documents"),
    ("text_chunks", "chunks"),
    ("nodes", "entities"),
    ("edges", "relations"),
)


def show_status(out: Console, status: Status) -> None:
    """Databases, backends, the last run."""
    out.print(f"Environment [verb]{escape(status.environment)}[/]\n")
    for database in status.databases:
        _database(out, database)
    out.print("Backends")
    for backend in status.backends:
        out.print(f"  {_backend_line(backend)}")
    if status.last_run is not None:
        run = status.last_run
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
        outcome = run.outcome or "running, or killed"
        out.print(f"\nLast run {run.id} by {escape(run.who)}, {when}: {outcome}")
    for name in status.paused:
        out.print(f'[warn]warning[/]: a killed run left "{escape(name)}" paused; hybridrag apply goes on')


def _database(out: Console, database: DatabaseStatus) -> None:
    style = "good" if database.health == "healthy" else "bad"
    out.print(
        f"[verb]{escape(database.database)}[/]  on {escape(database.backend)} ({escape(database.backend_type)})  ",
        end="",
    )
    out.print(f"[{style}]{database.health}[/]")
    if database.problem:
        out.print(f"  [bad]{escape(database.problem)}[/]")
    counts = "  ".join(f"{database.records.get(name, 0):,} {title}" for name, title in _COUNTS)
    where = f"  {size(database.size)}" if database.size is not None else ""
    out.print(f"  {counts}  [soft]{sum(database.records.values()):,} records{where}[/]")
    if database.wanted != database.backend:
        out.print(f"  [warn]the spec wants {escape(database.wanted)}[/]  [next]→ hybridrag plan[/]")
    out.print("")


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
    if facts.get("version"):
        told.append(f"PostgreSQL {escape(str(facts['version']))}")
    if facts.get("pgvector"):
        told.append(f"pgvector {escape(str(facts['pgvector']))}")
    if facts.get("port"):
        told.append(f"port {facts['port']}")
    if details.get("pid"):
        told.append(f"pid {details['pid']}")
    if details.get("bytes") is not None:
        told.append(size(float(details["bytes"] or 0)))
    return f"{line}  {', '.join(told)}" if told else f"{line}  [good]reachable[/]"
