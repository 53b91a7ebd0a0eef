"""What a watching daemon does, as seen from outside, and when a file of its database becomes too big. Read-only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hybridrag.journal import look_at_watcher, watch_path
from hybridrag.model.wanted import Thresholds, Wanted
from hybridrag.planner.forecast import Forecast, forecast

from .world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """The daemon of one database. Times are seconds since 1970; counts are since it was started.

    `state`: starting, ingesting, idle, paused, waiting or stopped; `never started` and `killed` where none runs, and
    `unknown` where its state cannot be read. `since`: when it was started; `host` and `pid` where it runs. `pauses`
    are the owners of those that hold, `drained` whether nothing is written for sure. `slower` (0 to 1): how much slower
    than usual ingesting was when that was last warned about. `sizes`: bytes of the database's JSON files, by name;
    `move_to`: the backend to move it to when they become too big.
    """

    database: str
    running: bool
    state: str
    detail: str = ""
    host: str | None = None
    pid: int | None = None
    since: float | None = None
    backend: str | None = None
    queued: int = 0
    ingested: int = 0
    failed: int = 0
    pauses: tuple[str, ...] = ()
    drained: bool = False
    last_error: str | None = None
    slower: float | None = None
    forecast: Forecast | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    move_to: str | None = None


def watcher_of(world: World, item: Wanted, sizes: Mapping[str, int]) -> Watcher | None:
    """None where our daemon does not feed the database. `sizes`: bytes of its JSON files now, by name."""
    if item.database not in world.watched:
        return None
    look = look_at_watcher(watch_path(world.state, item.database))
    if look is None or look.running is None:
        return Watcher(
            database=item.database,
            running=False,
            state="never started" if look is None else "unknown",
            sizes=sizes,
            thresholds=item.thresholds,
            move_to=world.server_for(item),
        )
    done = look.activity
    ended = "stopped" if done is None or done.state == "stopped" else "killed"
    now = time.time()
    recorded = [*look.sizes, *((now, name, size) for name, size in sizes.items())]
    return Watcher(
        database=item.database,
        running=look.running,
        state=(done.state if done else "starting") if look.running else ended,
        detail=done.detail if done and look.running else "",
        host=look.host,
        pid=look.pid,
        since=look.since,
        backend=done.backend if done else None,
        queued=done.queued if done and look.running else 0,
        ingested=done.ingested if done else 0,
        failed=done.failed if done else 0,
        pauses=look.pauses,
        drained=look.acknowledged,
        last_error=done.last_error if done else None,
        slower=look.warned.get("speed"),
        forecast=forecast(recorded, now, item.thresholds, sizes.keys()),
        sizes=sizes,
        thresholds=item.thresholds,
        move_to=world.server_for(item),
    )


def watchers(world: World, names: Iterable[str] = ()) -> list[Watcher]:
    """The daemons of some databases, or of all that one feeds; connects to nothing."""
    found = (watcher_of(world, item, world.file_sizes(item)) for item in world.chosen(names))
    return [watcher for watcher in found if watcher is not None]
