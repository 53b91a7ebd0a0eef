"""Warnings of the daemon: once, again on growth, never for what is not in files; and its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hybridrag.journal import WatchState
from hybridrag.model.selection import Embedding, Selection
from hybridrag.model.wanted import Thresholds
from hybridrag.model.watching import Models, Source, Watched
from hybridrag.watch.logs import logging_to
from hybridrag.watch.monitor import Monitor
from hybridrag.watch.view import View

LOG = "hybridrag.watch"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[WatchState]:
    with WatchState(tmp_path / "watch" / "notes.db") as opened:
        yield opened


def view(sizes: dict[str, int]) -> View:
    source = Source(kind="filesystem", path="/nowhere", recursive=True, extensions=(".md",))
    return View(
        watched=Watched(database="notes", source=source, interval_s=300, drain_s=60),
        backend="files",
        selection=Selection(),
        embedding=Embedding(model=None, dim=8),
        models=Models(),
        environ={},
        base_dir=Path(),
        thresholds=Thresholds(),
        way_out="hybridrag migrate notes --to pg",
        in_files=bool(sizes),
        sizes=lambda: sizes,
        inputs=(),
    )


def warned(state: WatchState, caplog: pytest.LogCaptureFixture, sizes: dict[str, int]) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, LOG):
        Monitor(state).look(view(sizes))  # another daemon each time: what was warned about is kept
    return [record.getMessage() for record in caplog.records]


def test_sizes_are_warned_about_once_and_again_on_growth(
    state: WatchState, caplog: pytest.LogCaptureFixture
) -> None:
    """File, size and command; 10 % more is worth another one; small again, then big again, is a first time."""
    big = {"vdb_chunks.json": 600_000_000, "kv_store_text_chunks.json": 499_999_999}
    (first,) = warned(state, caplog, big)
    assert first == (
        'vdb_chunks.json of "notes": 600 MB, above the threshold of 500 MB; consider a database server: '
        "hybridrag migrate notes --to pg"
    )
    assert warned(state, caplog, big) == []
    assert warned(state, caplog, {**big, "vdb_chunks.json": 650_000_000}) == []
    assert len(warned(state, caplog, {**big, "vdb_chunks.json": 660_000_000})) == 1
    assert warned(state, caplog, {"vdb_chunks.json": 1}) == []
    assert len(warned(state, caplog, big)) == 1


def test_the_total_recommends_the_move(state: WatchState, caplog: pytest.LogCaptureFixture) -> None:
    """Many files below their own threshold."""
    sizes = {f"file{number}": 450_000_000 for number in range(5)}
    (told,) = warned(state, caplog, sizes)
    assert told.startswith(
        'all files of "notes": 2,250 MB, above the threshold of 2,000 MB; move it to a database'
    )


def test_a_database_on_a_server_is_never_warned_about(
    state: WatchState, caplog: pytest.LogCaptureFixture
) -> None:
    """And what was warned about before the move is forgotten."""
    assert warned(state, caplog, {"vdb_chunks.json": 600_000_000})
    assert warned(state, caplog, {}) == []
    assert state.warned() == {}


def slow(state: WatchState, caplog: pytest.LogCaptureFixture, speed: int) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, LOG):
        Monitor(state).sampled(view({"file": 1}), 5, speed * 10, 10.0)
    return [record.getMessage() for record in caplog.records]


def test_ingesting_that_became_slow_is_told_with_both_speeds(
    state: WatchState, caplog: pytest.LogCaptureFixture
) -> None:
    """More than half slower than the median; not at half, not before there is a baseline, not every time."""
    assert slow(state, caplog, 1) == []
    for _ in range(6):
        assert slow(state, caplog, 1000) == []
    assert slow(state, caplog, 500) == []
    (told,) = slow(state, caplog, 400)
    assert "60 % slower than usual: 400 characters a second instead of 1,000" in told
    assert slow(state, caplog, 390) == []
    assert len(slow(state, caplog, 300)) == 1
    assert slow(state, caplog, 900) == []
    assert state.warned() == {}


def test_slowness_of_a_server_is_not_ours_to_warn_about(state: WatchState) -> None:
    """No slot in files: nothing is even measured."""
    from hybridrag.model.watching import Fate, Outcome

    done = [Outcome(name="a", fate=Fate.INGESTED, characters=1000, seconds=1.0)] * 10
    Monitor(state).note(view({}), done, 10.0)
    assert state.rates() == []
    Monitor(state).note(replace(view({}), in_files=True), done, 10.0)
    assert len(state.rates()) == 1


def test_the_log_is_json_rotates_and_keeps_errors_without_their_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Own files, one object a line; of an unexpected error the kind and the place, on the terminal too."""
    path = tmp_path / "watch" / "notes.log"
    with logging_to(path, "notes", terminal=False) as log:
        log.info('"%s" is in', "é.md", extra={"event": "ingested", "document": "é.md"})
        try:
            raise ValueError("a secret")
        except ValueError:
            log.exception("unexpected", extra={"event": "unexpected"})
        for _ in range(30_000):
            log.info("x" * 1000)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines[-1]["database"] == "notes"
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "notes.log", "notes.log.1", "notes.log.2", "notes.log.3", "notes.log.4",
    ]  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    with logging_to(path, "notes", terminal=True) as log:
        log.info('"%s" is in', "é.md", extra={"event": "ingested", "document": "é.md"})
        try:
            raise ValueError("a secret")
        except ValueError:
            log.exception("unexpected", extra={"event": "unexpected"})
    *_, first, second = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert (first["level"], first["event"], first["message"]) == ("info", "ingested", '"é.md" is in')
    assert second["error"] == "ValueError"
    assert "a secret" not in path.read_text("utf-8")
    shown = capsys.readouterr().err
    assert "ERROR   unexpected" in shown
    assert "ValueError at test_watch_monitor.py:" in shown
    assert "a secret" not in shown
