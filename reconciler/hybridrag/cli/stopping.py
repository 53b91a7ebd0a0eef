"""Ctrl-C, SIGTERM and a closed terminal: the first finishes what is in hand, the second ends the program at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from hybridrag.engine import Stop

Result = TypeVar("Result")
GRACE_S = 10.0
"""What is in hand may take as long; then it is broken off, which loses nothing but its time."""
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def run_stoppable(work: Coroutine[Any, Any, Result], stop: Stop) -> Result:
    """`asyncio.run`, with signals that ask `stop`. A second one leaves with exit code 130 and tidies nothing up."""
    return asyncio.run(_watched(work, stop))


async def _watched(work: Coroutine[Any, Any, Result], stop: Stop) -> Result:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)

    def asked(number: signal.Signals) -> None:
        if stop.asked:
            _leave()
        stop.ask()
        if number is signal.SIGHUP:
            be_deaf()
        _say("stopping after the batch in hand; once more to stop at once")
        loop.call_later(GRACE_S, break_off)

    def break_off() -> None:
        if not stop.ending:
            task.cancel()

    wanted = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    # What was ignored from the start (nohup, a background job) stays ignored.
    heard = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    taken = []
    for number in heard:
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, or not the main thread
            loop.add_signal_handler(number, asked, number)
            taken.append(number)
    try:
        return await task
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


def _say(words: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\n{words}\n")
        sys.stderr.flush()


def be_deaf() -> None:
    """The terminal is gone: whatever is still printed to it must not become an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(
            os.fstat(stream).st_mode
        ):  # a terminal that hung up is not one any more, but a device still
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _leave() -> None:
    with contextlib.suppress(OSError):
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # the cursor that a progress display hid
    os._exit(130)
