"""Ctrl-C, SIGTERM and a closed terminal during `apply`: nothing half done, words how to go on, and the next run does."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Project, clean_environment

APPLY = (sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--events", "events.jsonl")


def hear() -> None:
    """As in a terminal: a test run in the background may have passed an ignored Ctrl-C on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(project: Project, **more: object) -> subprocess.Popen[str]:
    environment = {**clean_environment(), "HYBRIDRAG_FAILPOINTS": "migrate.batch_committed=sleep:1500@3"}
    return subprocess.Popen(
        APPLY, cwd=project.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=hear, **more,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def until_copying(project: Project) -> None:
    """The copy has begun: its step has been announced, and a batch or two are in."""
    events = project.folder / "events.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if events.exists() and '"step": "migrate.' in events.read_text():
            time.sleep(0.4)
            return
        time.sleep(0.05)
    raise AssertionError("the copy did not begin")


def goes_on(project: Project) -> None:
    assert "files → pg (pending)" in project.ok("db", "list")
    assert "0 missing, 0 extra, 0 different" in project.ok("apply", "--auto-approve")
    assert "No changes" in project.ok("plan")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
)
def test_the_first_signal_ends_between_two_batches_with_8(project: Project, number: signal.Signals) -> None:
    process = start(project)
    until_copying(project)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 8, said
    assert "hybridrag apply goes on" in said
    assert "interrupted" in project.ok("status")
    goes_on(project)


@pytest.mark.slow
def test_the_second_one_ends_at_once_with_130(project: Project) -> None:
    process = start(project)
    until_copying(project)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    goes_on(project)


@pytest.mark.slow
def test_a_closed_terminal_is_no_traceback(project: Project, tmp_path: Path) -> None:
    """The progress display writes to a terminal that is gone; the run still ends in order."""
    master, slave = pty.openpty()
    environment = {
        **clean_environment(),
        "HYBRIDRAG_FAILPOINTS": "migrate.batch_committed=sleep:1500@3",
        "TERM": "xterm",
    }
    process = subprocess.Popen(
        APPLY, cwd=project.folder, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=hear,
    )  # fmt: skip
    os.close(slave)
    until_copying(project)
    os.close(master)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 8
    goes_on(project)
