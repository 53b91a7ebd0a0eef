"""Progress of a pass: the whole and each stream that is being worked on, with rate and time left."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from hybridrag.journal import Journal
from hybridrag.journal.reading import progress
from hybridrag.migrate.progress import Meter
from hybridrag.model.events import Event, Progress, StreamProgress
from hybridrag.render.console import THEME
from hybridrag.render.run_text import RunDisplay


def test_each_stream_has_its_own_rate_and_the_whole_has_all(tmp_path: Path) -> None:
    """Two lanes: what a stream did counts for it and for the whole; a stream that ended is not shown any more."""
    told: list[Event] = []
    now = [0.0]
    meter = Meter(
        told.append, "migrate.notes", "copying", 1000, start=100,
        totals={"nodes": 400, "entities": 600}, starts={"nodes": 100}, clock=lambda: now[0],
    )  # fmt: skip
    with meter.stream("entities"):
        with meter.stream("nodes"):
            now[0] = 2.0
            meter.add(100, 10, "nodes")
            meter.add(200, 20, "entities")
            meter.tell()
        meter.tell()
    meter.tell()
    both, one, none = told[-3:]
    assert isinstance(both, Progress)
    assert isinstance(one, Progress)
    assert isinstance(none, Progress)
    assert (both.records, both.total, both.bytes, both.rate) == (400, 1000, 30, 150.0)
    assert set(both.streams) == {
        StreamProgress(namespace="nodes", records=200, total=400, rate=50.0, eta_s=4.0),
        StreamProgress(namespace="entities", records=200, total=600, rate=100.0, eta_s=4.0),
    }
    assert [stream.namespace for stream in one.streams] == ["entities"]
    assert none.streams == ()

    with Journal(tmp_path / "journal.db") as journal:
        journal.begin_run("r1", "me", "s", "o")
        journal.put_progress("notes", "r1", both)
    assert set(progress(tmp_path / "journal.db")["notes"].streams) == set(both.streams)


def test_a_terminal_shows_the_streams_below_the_whole() -> None:
    """With names for people, rate and time left; they go when they are done."""
    stream = StreamProgress(namespace="entities", records=200, total=600, rate=100.0, eta_s=4.0)
    event = Progress(
        step="migrate.notes", phase="copying", records=400, total=1000, bytes=0, rate=150.0, eta_s=4.0,
        streams=(stream,),
    )  # fmt: skip
    out = Console(file=io.StringIO(), force_terminal=True, width=120, theme=THEME, color_system=None)
    with RunDisplay(out) as display:
        display.on_event(event)
        assert display._bars is not None
        shown = [(task.description, task.fields["told"]) for task in display._bars.tasks]
        assert shown[1] == ("  entity vectors", "200/600 records  100/s  4.0 s left")
        display.on_event(Progress(step="migrate.notes", phase="copying", records=500, total=1000, bytes=0, rate=1.0, eta_s=1.0))  # fmt: skip
        assert len(display._bars.tasks) == 1


def test_progress_is_told_a_few_times_a_second_and_never_says_more_than_all() -> None:
    """An estimate that was too small grows; a rate needs half a second; what was done before is not this run's speed."""
    told: list[Event] = []
    now = [0.0]
    meter = Meter(told.append, "migrate.notes", "copying", 100, start=50, clock=lambda: now[0])
    meter.add(10, 5)
    assert told == []
    now[0] = 0.3
    meter.add(10, 5)
    meter.add(10, 5)
    (first,) = told
    assert isinstance(first, Progress)
    assert (first.records, first.bytes, first.rate, first.eta_s) == (70, 10, None, None)
    now[0] = 2.0
    meter.add(70, 0)
    last = told[-1]
    assert isinstance(last, Progress)
    assert (last.records, last.total, last.rate, last.eta_s) == (150, 150, 50.0, 0.0)
