"""The event stream: what happens during a run, typed and versioned. The engine emits, render and
`--events` read. An event never holds a secret or a record's content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

EVENTS_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `type` is its name in the stream."""

    type: ClassVar[str] = "event"

    def as_dict(self) -> dict[str, Any]:
        return {"version": EVENTS_VERSION, "type": self.type, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReady(Event):
    """The plan that this run carries out."""

    type: ClassVar[str] = "plan"
    run: str
    steps: tuple[str, ...]
    databases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    type: ClassVar[str] = "step_started"
    step: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProgress:
    """How far one stream of a step is; units as in `Progress`."""

    namespace: str
    records: int
    total: int
    rate: float | None
    eta_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """How far a step is. `rate` is records per second, `eta_s` seconds; None while unknown.

    `streams` are those that are being worked on at this moment.
    """

    type: ClassVar[str] = "progress"
    step: str
    phase: str
    records: int
    total: int
    bytes: int
    rate: float | None
    eta_s: float | None
    streams: tuple[StreamProgress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    type: ClassVar[str] = "warning"
    step: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined(Event):
    """Records that the target cannot hold, kept aside in `file`; `streams` counts them by stream."""

    type: ClassVar[str] = "quarantined"
    step: str
    database: str
    records: int
    streams: dict[str, int]
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone(Event):
    """`outcome` is done, or unchanged when the check found nothing to do."""

    type: ClassVar[str] = "step_done"
    step: str
    outcome: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(Event):
    type: ClassVar[str] = "step_failed"
    step: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDone(Event):
    """`outcome` is done, failed or interrupted; `serving` maps each database to the backend that serves it.

    `quarantined` counts, by database, the records that were kept aside. `paused` says for how many seconds the writer
    of a database was stopped.
    """

    type: ClassVar[str] = "run_done"
    run: str
    outcome: str
    seconds: float
    serving: dict[str, str]
    quarantined: dict[str, int] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)


Emit = Callable[[Event], None]
