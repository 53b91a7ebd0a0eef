"""A run for people: live bars on a terminal, one line a step when piped. Reads events and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from hybridrag.model.data import BY_NAME
from hybridrag.model.events import (
    Event,
    Quarantined,
    RunDone,
    StepDone,
    StepFailed,
    StepStarted,
    StreamProgress,
    Warned,
)
from hybridrag.model.events import Progress as ProgressEvent

from .units import duration, size


class RunDisplay:
    """Context manager; `on_event` is the listener."""

    def __init__(self, out: Console, *, quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self._bars: Progress | None = None
        self._bar: tuple[str, str, TaskID] | None = None
        self._streams: dict[str, TaskID] = {}

    def __enter__(self) -> RunDisplay:
        if self._out.is_terminal and not self._quiet:
            self._bars = Progress(
                TextColumn("    {task.description}"),
                BarColumn(28),
                TextColumn("{task.fields[told]}"),
                console=self._out,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def on_event(self, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            self._progress(event)
            return
        if isinstance(event, (StepDone, StepFailed)):
            self._end_bar()
        if self._quiet and not isinstance(event, (StepFailed, Warned, Quarantined, RunDone)):
            return
        if isinstance(event, StepStarted) and self._out.is_terminal:
            self._start_bar(event.step, event.summary)
        elif isinstance(event, StepDone):
            mark = "=" if event.outcome == "unchanged" else "✓"
            self._out.print(
                f"  [good]{mark}[/] [verb]{escape(event.step)}[/]  {escape(event.detail)} "
                f"[soft]({duration(event.seconds)})[/]"
            )
        elif isinstance(event, StepFailed):
            self._out.print(f"  [bad]✗[/] [verb]{escape(event.step)}[/]  failed")
        elif isinstance(event, Warned):
            self._out.print(f"    [warn]![/] {escape(event.message)}")
        elif isinstance(event, Quarantined):
            streams = ", ".join(f"{name} {count:,}" for name, count in event.streams.items())
            self._out.print(
                f"    [warn]![/] {_records(event.records)} cannot be held there ({escape(streams)}); with the reasons "
                f"in {escape(event.file)}"
            )
        elif isinstance(event, RunDone) and event.outcome == "done":
            for name, count in event.quarantined.items():
                self._out.print(f"\n[warn]![/] {escape(name)}: {_records(count)} left out, in quarantine")
        elif isinstance(event, RunDone):
            serving = ", ".join(f"{name} by {backend}" for name, backend in event.serving.items())
            self._out.print(f"\n[verb]Still serving:[/] {escape(serving)}. The source is untouched.")

    def _start_bar(self, step: str, phase: str) -> None:
        if self._bars is not None:
            self._end_bar()
            self._bar = (step, phase, self._bars.add_task(escape(f"{step}: {phase}"), total=None, told=""))

    def _end_bar(self) -> None:
        if self._bars is not None and self._bar is not None:
            with contextlib.suppress(KeyError):
                self._bars.remove_task(self._bar[2])
            self._show_streams(())
        self._bar = None

    def _progress(self, event: ProgressEvent) -> None:
        if self._bars is None:
            return
        if self._bar is None or self._bar[:2] != (event.step, event.phase):
            self._start_bar(event.step, event.phase)
        if self._bar is None:
            return
        told = _told(event.records, event.total, event.bytes, event.rate, event.eta_s)
        total = event.total or None
        self._bars.update(self._bar[2], completed=event.records, total=total, told=told)
        self._show_streams(event.streams)

    def _show_streams(self, streams: Sequence[StreamProgress]) -> None:
        """A bar for each stream that is being worked on, below the one of the whole."""
        if self._bars is None:
            return
        for name in self._streams.keys() - {stream.namespace for stream in streams}:
            self._bars.remove_task(self._streams.pop(name))
        for stream in streams:
            title = f"  {BY_NAME[stream.namespace].title}"
            if stream.namespace not in self._streams:
                self._streams[stream.namespace] = self._bars.add_task(title, total=None, told="")
            self._bars.update(
                self._streams[stream.namespace],
                completed=stream.records,
                total=stream.total or None,
                told=_told(stream.records, stream.total, 0, stream.rate, stream.eta_s),
            )


def _told(records: int, total: int, done_bytes: int, rate: float | None, eta_s: float | None) -> str:
    told = []
    if total:
        told.append(f"{records:,}/{total:,} records")
    if done_bytes:
        told.append(size(done_bytes))
    if rate:
        told.append(f"{rate:,.0f}/s")
    if eta_s is not None:
        told.append(f"{duration(eta_s)} left")
    return "  ".join(told)


def _records(count: int) -> str:
    return f"{count:,} {'record' if count == 1 else 'records'}"
