"""A paused watcher: drained before the pause counts, quiet while it holds, and no switch once it ran out."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.integration.test_watch import all_in, watched  # noqa: F401
from tests.support.watching import Watched, until


@contextlib.contextmanager
def until_idle(watched: Watched) -> Iterator[None]:
    until(lambda: watched.is_in("idle"), why=watched.log)
    yield


RECONCILER = """
import asyncio, pathlib, sys
from hybridrag.watch.halter import WatcherHalter
from hybridrag.errors import PlanRefused

async def main():
    halter = WatcherHalter("notes", pathlib.Path(sys.argv[1]), drain_s=20, ttl_s=float(sys.argv[2]))
    print(await halter.pause(), flush=True)
    for line in sys.stdin:
        try:
            with halter.sealed():
                pass
            print("sealed", flush=True)
        except PlanRefused as error:
            print("refused:", error, flush=True)

asyncio.run(main())
"""


@contextlib.contextmanager
def reconciler(watched: Watched, *, ttl_s: float) -> Iterator[subprocess.Popen[str]]:
    """A process that paused the watcher as an apply does, and tries to switch for every line it is given."""
    argv = [sys.executable, "-c", RECONCILER, str(watched.state), str(ttl_s)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process)


@pytest.mark.slow
def test_a_pause_by_hand_outlives_the_daemon(watched: Watched) -> None:
    """Nothing is written until it is lifted, by no daemon; then it goes on by itself."""
    with watched.daemon() as process:
        watched.put("one.md", "first")
        until(lambda: all_in(watched), why=watched.log)
        assert "is paused" in watched.ok("watch", "pause", "notes")
        assert watched.writers() == []
        assert "already" in watched.ok("watch", "pause", "notes")
        watched.put("two.md", "second")
        process.kill()
    with watched.daemon():
        until(lambda: watched.is_in("paused"), why=watched.log)
        time.sleep(2)
        assert (watched.writers(), list(watched.in_files())) == ([], ["one.md"])
        assert "may be written again" in watched.ok("watch", "resume", "notes")
        until(lambda: all_in(watched), why=watched.log)


def test_without_a_daemon_a_pause_holds_at_once_for_the_next_one(watched: Watched) -> None:
    """Nobody runs, so nothing is written; a daemon that starts meanwhile finds the pause."""
    watched.put("one.md", "first")
    with reconciler(watched, ttl_s=30) as process:
        assert answer(process) == "no watcher runs, and none begins to write"
        with watched.daemon():
            until(lambda: watched.is_in("paused"), why=watched.log)
            assert ask(process) == "sealed"
            assert (watched.writers(), watched.went_in()) == ([], [])
            process.kill()
            until(lambda: all_in(watched), why=watched.log)


def test_the_document_in_hand_is_ended_before_a_pause_counts(watched: Watched) -> None:
    """Acknowledged means drained: no process is there, the document in hand is in, the next one is not."""
    with watched.daemon():
        watched.put("one.md", "sleep 4")
        until(lambda: watched.is_in("ingesting") and watched.writers())
        with reconciler(watched, ttl_s=30) as process:
            watched.put("two.md", "second")
            assert "drained in" in answer(process)
            assert (watched.writers(), list(watched.in_files())) == ([], ["one.md"])
            assert watched.look().acknowledged
            process.kill()
        until(lambda: all_in(watched), why=watched.log)
        assert watched.events("paused")
        assert watched.events("resumed")


def test_a_run_that_slept_longer_than_its_pause_does_not_switch(watched: Watched) -> None:
    """Stopped, its pause lapses and the daemon goes on; awake again it is refused, and changes nothing."""
    with watched.daemon(), until_idle(watched), reconciler(watched, ttl_s=2) as process:
        assert "drained" in answer(process)
        time.sleep(3)  # kept fresh
        assert ask(process) == "sealed"
        process.send_signal(signal.SIGSTOP)
        watched.put("one.md", "first")
        until(lambda: all_in(watched), why=watched.log)
        process.send_signal(signal.SIGCONT)
        assert "ran out before the switch" in ask(process)
