"""One database in full, for people: what `hybridrag backend status` prints."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from hybridrag.engine.status import DatabaseStatus
from hybridrag.model.data import NAMESPACES

from .status_text import COUNTS, STYLES, remarks
from .status_words import count, way_out
from .units import size


def show_database(out: Console, database: DatabaseStatus, *, verbose: bool = False) -> None:
    """Database, backend and status; metrics; sizes with a total; warnings with the command to paste."""
    out.print(f"Database  [verb]{escape(database.database)}[/]")
    out.print(f"Backend   {escape(database.backend)} ({escape(database.backend_type)})")
    out.print(f"Status    [{STYLES[database.health]}]{database.health}[/]")
    _metrics(out, database, verbose)
    _sizes(out, database)
    lines = remarks(database, sizes=False)
    if lines:
        out.print("")
    for line in lines:
        out.print(line)
    if database.oversized:
        out.print(f"\nTo move it to a database server:\n  [next]{escape(way_out(database))}[/]")


def _metrics(out: Console, database: DatabaseStatus, verbose: bool) -> None:
    out.print("\nMetrics")
    if not database.records:
        shown = [("records", "not known")]
    elif verbose:
        shown = [(item.title, count(database, item.name)) for item in NAMESPACES]
    else:
        shown = [(title, count(database, name)) for name, title in COUNTS]
    connection = "yes" if database.connected else "[bad]no[/]"
    if database.latency_ms is not None:
        connection += f", in {database.latency_ms} ms"
    title = max(len(title) for title, _ in (*shown, ("connected", "")))
    figure = max(len(figure) for _, figure in shown)
    for name, number in shown:
        out.print(f"  {name.ljust(title)}  {number.rjust(figure)}")
    out.print(f"  {'connected'.ljust(title)}  {connection}")
    if any(number.startswith("~") for _, number in shown):
        out.print("  [soft]~ estimated from samples[/]")


def _sizes(out: Console, database: DatabaseStatus) -> None:
    if not database.sizes:
        if database.size is not None:
            what = (
                "its own database on the server"
                if database.alone
                else "the server's whole database, all workspaces"
            )
            out.print(f"\nSize      {size(database.size)}  [soft]{what}[/]")
        return
    out.print("\nFiles")
    width = max(len(name) for name in database.sizes)
    limits = database.thresholds
    for name, number in sorted(database.sizes.items(), key=lambda item: -item[1]):
        line = f"  {escape(name.ljust(width))}  {size(number).rjust(8)}"
        if name in database.oversized:
            line = f"[warn]{line}  ! above {size(limits.file_bytes)}[/]"
        out.print(line)
    total = f"  {'total'.ljust(width)}  {size(database.size or 0).rjust(8)}"
    out.print(f"[warn]{total}  ! above {size(limits.total_bytes)}[/]" if "" in database.oversized else total)
