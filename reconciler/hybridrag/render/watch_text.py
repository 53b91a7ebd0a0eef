"""Watching daemons for people: what `hybridrag watch status` prints."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hybridrag.engine.watching import Watcher

from .watch_words import forecast_words, warnings

STYLES = {
    "ingesting": "good", "idle": "good", "starting": "good", "paused": "warn", "waiting": "warn", "killed": "bad",
    "unknown": "bad",
}  # fmt: skip


def show_watchers(out: Console, watchers: list[Watcher]) -> None:
    """A table, and below it what is the matter."""
    if not watchers:
        out.print("no database has a watcher  [next]→ databases.<name>.writer: {kind: watcher}[/]")
        return
    table = Table(box=None, pad_edge=False, header_style="soft")
    for title in ("database", "watcher", "backend"):
        table.add_column(title, overflow="fold")
    for title in ("queued", "ingested", "failed", "pid", "since"):
        table.add_column(title, justify="right", overflow="fold")
    for watcher in watchers:
        since = (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(watcher.since))
            if watcher.since is not None
            else "-"
        )
        table.add_row(
            f"[verb]{escape(watcher.database)}[/]",
            f"[{STYLES.get(watcher.state, 'soft')}]{watcher.state}[/]",
            escape(watcher.backend or "-"),
            *(f"{number:,}" for number in (watcher.queued, watcher.ingested, watcher.failed)),
            str(watcher.pid or "-"),
            since,
        )
    out.print(table, soft_wrap=False)
    told = [
        f"[verb]{escape(watcher.database)}[/]  {line}" for watcher in watchers for line in _remarks(watcher)
    ]
    if told:
        out.print("")
    for line in told:
        out.print(line)


def _remarks(watcher: Watcher) -> list[str]:
    found = []
    if watcher.running and watcher.detail:
        found.append(f"[soft]{escape(watcher.detail)}[/]")
    if watcher.pauses and not watcher.drained:
        found.append("[warn]a pause is asked for; the document in hand is ended first[/]")
    if not watcher.running:
        if watcher.pauses:
            found.append(f"[warn]a pause holds: {escape(', '.join(watcher.pauses))}[/]")
        found.append(f"[next]→ hybridrag watch start {escape(watcher.database)}[/]")
    if watcher.last_error and watcher.last_error != watcher.detail:
        found.append(f"[warn]{escape(watcher.last_error)}[/]")
    found += [f"[warn]{escape(warning)}[/]" for warning in warnings(watcher)]
    if words := forecast_words(watcher):
        found.append(f"[warn]{escape(words)}[/]")
    return found
