"""Commands of the user's, or of the system, that stop and start a writer: run with a time limit, never through a shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridrag.errors import PlanRefused

_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, and the last line it printed."""

    code: int
    said: str

    def __str__(self) -> str:
        return f"ended with exit code {self.code}" + (f": {self.said}" if self.said else "")


class Started:
    """A command that was begun, in a session of its own: Ctrl-C is ours to answer."""

    def __init__(self, key: str, argv: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        self._last = ""
        # A file, not a pipe: what the command leaves in the background may go on printing.
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it ended
        try:
            self._process = subprocess.Popen(
                list(argv),
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=self._told,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._told.close()
            raise PlanRefused(
                f'{key}: "{argv[0]}" cannot be run: {error.strerror}', hint=f"correct {key} in the spec"
            ) from None

    def ended(self) -> Ended | None:
        """None while it runs."""
        if self._process.poll() is None:
            return None
        if not self._told.closed:
            self._told.seek(max(0, os.fstat(self._told.fileno()).st_size - 4096))
            last = self._told.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            self._last = last[0][:200] if last else ""
            self._told.close()
        return Ended(self._process.returncode, self._last)

    def let_go(self) -> None:
        """Whatever still runs goes on by itself."""
        self._told.close()
        if self._process.poll() is None:
            self._process.returncode = 0  # nobody waits for it any more

    def kill(self, *, all_of_it: bool = False) -> None:
        """The command, or with `all_of_it` whatever it left running in its session's group."""
        with contextlib.suppress(ProcessLookupError):
            if all_of_it:
                os.killpg(self._process.pid, signal.SIGKILL)
            elif self._process.poll() is None:
                self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._told.close()


async def run(
    key: str,
    argv: Sequence[str],
    *,
    timeout_s: float,
    folder: Path,
    environ: Mapping[str, str],
    limit: str,
) -> Ended:
    """How it ended. Raises PlanRefused where it cannot be run, or took longer than `limit` (a key of the spec) allows."""
    started = Started(key, argv, folder, environ)
    deadline = time.monotonic() + timeout_s
    try:
        while (ended := started.ended()) is None:
            if time.monotonic() > deadline:
                raise PlanRefused(
                    f'{key}: "{argv[0]}" did not end within {timeout_s:.0f} s',
                    hint=f"run it by hand, or raise {limit}",
                )
            await asyncio.sleep(_LOOK_S)
    except BaseException:
        started.kill()
        raise
    started.let_go()
    return ended
