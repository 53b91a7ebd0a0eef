"""Sentences about a watching daemon that status and `watch status` share."""

from __future__ import annotations

from hybridrag.engine.watching import Watcher
from hybridrag.model.wanted import way_out

from .status_words import size_sentences
from .units import plural, size


def forecast_words(watcher: Watcher) -> str | None:
    """When a threshold is reached, if it goes on like this."""
    coming = watcher.forecast
    if coming is None:
        return None
    what = f"{coming.file} reaches" if coming.file else "all files together reach"
    days = max(1, round(coming.days))
    return f"{what} {size(coming.threshold)} in about {plural(days, 'day')} at {size(coming.per_day)} a day"


def warnings(watcher: Watcher) -> tuple[str, ...]:
    """What the daemon warns about and is so still: files that are too big, ingesting that became slow."""
    command = way_out(watcher.database, watcher.move_to)
    found = size_sentences(watcher.sizes, watcher.thresholds, command)
    if words := slow_words(watcher):
        found.append(f"{words}; consider a database server: {command}")
    return tuple(found)


def slow_words(watcher: Watcher) -> str | None:
    """That ingesting became slow, while it is so."""
    return None if watcher.slower is None else f"ingesting is {100 * watcher.slower:.0f} % slower than usual"


def state_words(watcher: Watcher) -> str:
    """What the daemon does, in one short sentence."""
    told = f"watcher {watcher.state}"
    if watcher.running and watcher.state == "ingesting":
        told += f", {watcher.queued:,} queued"
    elif watcher.state in ("waiting", "paused", "idle") and watcher.detail:
        told += f": {watcher.detail}"
    if watcher.failed:
        told += f"; {plural(watcher.failed, 'file')} could not be ingested"
    return told
