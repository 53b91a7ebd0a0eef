"""What people read: names are shown as they are, numbers in one form, and nothing depends on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hybridrag.engine import Status
from hybridrag.engine.status import BackendStatus, DatabaseStatus, Migration
from hybridrag.journal import RunRecord
from hybridrag.model.data import Slot
from hybridrag.model.events import PlanReady, Progress, RunDone, StepDone, StepFailed, StepStarted, Warned
from hybridrag.model.plan import Hazard, HazardKind, Move, Plan, Step
from hybridrag.model.wanted import Thresholds
from hybridrag.render.console import THEME, console
from hybridrag.render.plan_text import show_plan
from hybridrag.render.run_text import RunDisplay
from hybridrag.render.status_one import show_database
from hybridrag.render.status_text import show_health, show_status
from hybridrag.render.units import duration, plural, size

HOSTILE = st.sampled_from(
    ["[red]x[/red]", "[/]", "[/nope]", "a\\", "\\[b]", "[link=http://x]y", ":smile:", "李明 📜", "[", "]["]
)


def plain() -> Console:
    """The console of a pipe, into memory."""
    made = console(color=False)
    made.file = io.StringIO()
    return made


def text(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def _plan(word: str) -> Plan:
    step = Step(
        id=f"migrate.{word}", verb="migrate", target=word, summary=f"copy {word}", reason=f"of {word}", records=1234,
        bytes=5_000_000, estimate_s=61.0, hazards=(Hazard(kind=HazardKind.DATA_COPY, detail=f"detail {word}"),),
    )  # fmt: skip
    move = Move(
        id=word,
        database=word,
        slots=tuple(Slot),
        source="json",
        target="pg",
        workspace="w",
        fingerprint="f",
        migration_id="m",
    )
    return Plan(environment=word, spec_digest="", observation_digest="", steps=(step,), moves={word: move},
                in_place=(f"in place {word}",), warnings=(f"careful {word}",))  # fmt: skip


@given(HOSTILE)
def test_names_with_markup_are_shown_as_they_are(word: str) -> None:
    """In a plan, a status and a run, wherever a name, a path or a server's own words may stand."""
    out = plain()
    show_plan(out, _plan(word))
    database = DatabaseStatus(
        database=word, backend=word, backend_type="json", wanted=f"other {word}", health="error",
        problems=(f"problem {word}",), hint=f"do {word}", connected=False, latency_ms=None, records={"nodes": 1234, "entities": None},
        estimated=frozenset(), size=9, sizes={f"file {word}": 9}, thresholds=Thresholds(file_bytes=1, total_bytes=2),
        oversized=(f"file {word}", ""), move_to=f"target {word}",
        migration=Migration(state="interrupted", step="s", phase=f"phase {word}", records=1, total=2, bytes=3,
                            rate=None, eta_s=None, error=None),
    )  # fmt: skip
    show_database(out, database, verbose=True)
    show_health(out, {word: {"healthy": False, "latency_ms": 1.5, "version": word, "detail": f"ill {word}"}})
    pending = replace(database, database=f"pending {word}", migration=None)
    facts: dict[str, Any] = {
        "reachable": True,
        "version": f"16 {word}",
        "pgvector": word,
        "port": 1,
        "provision": word,
    }
    backends = (
        BackendStatus(
            name=word,
            type=word,
            facts=facts,
            details={"latency_ms": 1.5, "pid": 3, "bytes": 1e6},
            words=(f"16 {word}",),
        ),
        BackendStatus(name=word, type="postgres", facts={"problem": f"down {word}"}, details={}),
    )
    run = RunRecord(id="r1", started=0.0, finished=1.0, who=f"{word}@host", outcome="failed", error=word)
    show_status(
        out,
        Status(
            environment=word,
            databases=(database, pending),
            backends=backends,
            last_run=run,
            running=False,
            paused=(word,),
        ),
    )
    with RunDisplay(out) as display:
        for event in (
            PlanReady(run="r1", steps=(word,), databases=(word,)),
            StepStarted(step=word, summary=word),
            Progress(step=word, phase=word, records=1, total=2, bytes=3, rate=4.0, eta_s=5.0),
            Warned(step=word, message=f"warned {word}"),
            StepDone(step=f"done {word}", outcome="done", seconds=1.0, detail=f"detail {word}"),
            StepFailed(step=f"failed {word}", code="error", message=word),
            RunDone(run="r1", outcome="failed", seconds=1.0, serving={word: word}),
        ):
            display.on_event(event)
    shown = text(out)
    for phrase in (
        f"copy {word}",
        f"of {word}",
        f"detail {word}",
        f"in place {word}",
        f"careful {word}",
        f"problem {word}",
        f"file {word}",
        f"phase {word}",
        f"ill {word}",
        f"→ do {word}",
        f"pending {word}",
        f"hybridrag migrate {word} --to target {word}",
        f"other {word}",
        f"16 {word}",
        f"down {word}",
        f"{word}@host",
        f"warned {word}",
        f"done {word}",
        f"failed {word}",
    ):
        assert phrase in shown  # fmt: skip
    assert "\x1b" not in shown


def test_a_long_line_is_not_wrapped_in_a_pipe_and_a_live_display_shows_progress() -> None:
    """A pipe gets one line a step; a terminal gets a bar with records, rate and time left, and the same lines after it."""
    out = plain()
    show_plan(out, _plan("x" * 400))
    assert "copy " + "x" * 400 in text(out)
    live = Console(file=io.StringIO(), force_terminal=True, width=160, theme=THEME)
    with RunDisplay(live) as display:
        display.on_event(StepStarted(step="migrate.notes", summary="copy"))
        display.on_event(
            Progress(
                step="migrate.notes",
                phase="copying",
                records=50,
                total=100,
                bytes=2_000_000,
                rate=10.0,
                eta_s=5.0,
            )
        )
        assert display._bars is not None
        (task,) = display._bars.tasks
        assert task.fields["told"] == "50/100 records  2.0 MB  10/s  5.0 s left"
        display.on_event(StepDone(step="migrate.notes", outcome="unchanged", seconds=0.1, detail="there"))
        assert not display._bars.tasks
    assert "there" in text(live)


def test_quiet_tells_only_what_went_wrong() -> None:
    """Warnings and failures."""
    out = plain()
    with RunDisplay(out, quiet=True) as display:
        display.on_event(StepStarted(step="a", summary="b"))
        display.on_event(StepDone(step="a", outcome="done", seconds=1, detail="fine"))
        display.on_event(Warned(step="a", message="odd"))
        display.on_event(StepFailed(step="a", code="error", message="m"))
    assert "fine" not in text(out)
    assert "odd" in text(out)
    assert "failed" in text(out)


def test_a_plan_says_what_to_run_next_and_an_empty_one_that_nothing_is_to_be_done() -> None:
    """The last line is the next command."""
    out = plain()
    show_plan(out, _plan("notes"), told_next="hybridrag apply p.json")
    lines = text(out).rstrip().splitlines()
    assert lines[-1] == "→ hybridrag apply p.json"
    assert "1 step, 1 database to move, 1,234 records, about 1 min 01 s" in lines[-2]
    out = plain()
    show_plan(out, Plan(environment="dev", spec_digest="", observation_digest="", in_place=("notes",)))
    assert "No changes" in text(out)
    assert "apply" not in text(out)


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (size(0), "0 B"), (size(999), "999 B"), (size(1000), "1.0 KB"), (size(43_100_000), "43.1 MB"), (size(2.5e12), "2.5 TB"),
        (size(999_999), "1.0 MB"), (duration(0.04), "0.0 s"), (duration(9.96), "10 s"), (duration(59.7), "1 min 00 s"),
        (duration(245), "4 min 05 s"), (duration(3599.6), "1 h 00 min"), (duration(7800), "2 h 10 min"), (plural(1, "step"), "1 step"),
        (plural(1000, "entry", "entries"), "1,000 entries"),
    ],
)  # fmt: skip
def test_numbers_for_people(made: str, wanted: str) -> None:
    """Also where rounding reaches the next unit."""
    assert made == wanted
