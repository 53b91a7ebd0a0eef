"""Places where a proof may make this process die, stall or fail: named once here, silent unless a variable arms them.

    HYBRIDRAG_FAILPOINTS="migrate.batch_committed=kill@7;registry.written=sleep:2000"

`name=action[@n]`, divided by ";": the action is taken at the n-th passing (default the first) and only then. Actions:
`kill` (SIGKILL to our process group), `stop` (SIGSTOP to ourselves), `sleep:MILLISECONDS`, `error` (OSError, as of a
failing disk) and `full` (OSError ENOSPC). A wrong value stops the program at its first point: a proof that runs
without its fault would prove nothing.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import signal
import threading
import time

VARIABLE = "HYBRIDRAG_FAILPOINTS"
_ACTION = re.compile(r"(?P<action>kill|stop|error|full|sleep:(?P<ms>[0-9]+))(@(?P<nth>[1-9][0-9]*))?")


class Point(str, enum.Enum):
    """Every place that a proof can name."""

    JOURNAL_BEFORE = "journal.before_commit"
    JOURNAL_AFTER = "journal.committed"
    BATCH_SENT = "migrate.batch_sent"
    BATCH_COMMITTED = "migrate.batch_committed"
    COPIED = "migrate.copied"
    VERIFIED = "verify.done"
    PAUSED = "pause.done"
    CAUGHT_UP = "catch_up.done"
    SWITCH_MARKED = "switch.marked"
    NOTED = "switch.noted"
    REGISTRY_BEFORE = "registry.before_replace"
    REGISTRY_AFTER = "registry.replaced"
    RESUME_BEFORE = "resume.begins"
    RESUMED = "resume.done"


_guard = threading.Lock()
_passed: dict[Point, int] = {}
_armed: dict[Point, tuple[str, int]] | None = None if os.environ.get(VARIABLE) else {}


def failpoint(point: Point) -> None:
    """Pass a point. Does nothing unless the variable arms it."""
    if _armed == {}:
        return
    with _guard:
        action, nth = _arm().get(point, ("", 0))
        _passed[point] = _passed.get(point, 0) + 1
        if not action or _passed[point] != nth:
            return
    _act(action, point)


def _arm() -> dict[Point, tuple[str, int]]:
    global _armed
    if _armed is None:
        armed = {}
        for entry in filter(None, os.environ[VARIABLE].split(";")):
            name, _, wanted = entry.partition("=")
            match = _ACTION.fullmatch(wanted)
            if match is None or name not in {point.value for point in Point}:
                raise SystemExit(f'{VARIABLE}: "{entry}" is not understood')
            armed[Point(name)] = (match["action"], int(match["nth"] or 1))
        _armed = armed
    return _armed


def _act(action: str, point: Point) -> None:
    if action == "kill":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action.startswith("sleep:"):
        time.sleep(int(action.removeprefix("sleep:")) / 1000)
    else:
        code = errno.ENOSPC if action == "full" else errno.EIO
        raise OSError(code, os.strerror(code), point.value)
