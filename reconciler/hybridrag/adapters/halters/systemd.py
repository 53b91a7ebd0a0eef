"""`writer.kind: systemd`: a unit is stopped and started, by `systemctl`.

A unit that was stopped stays down whatever its `Restart=` says; a timer, a socket or another unit can still start it, so it is
looked at once more before the switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from hybridrag.adapters.env_file import EnvFile
from hybridrag.errors import PlanRefused
from hybridrag.model.selection import Selection

from .commands import Ended, run

_LOOK_S, _STAYS_S = 0.2, 3.0
_DOWN = ("inactive", "failed")


class SystemdHalter:
    """See `model.services.Halter`. `timeout_s` holds for stopping and for starting."""

    def __init__(
        self,
        database: str,
        *,
        unit: str,
        user: bool,
        env_file: EnvFile | None,
        timeout_s: int,
        folder: Path,
        environ: Mapping[str, str],
    ) -> None:
        self._key = f"databases.{database}.writer"
        self._unit = unit
        self._systemctl = ("systemctl", *(("--user",) if user else ()))
        self._file = env_file
        self._timeout_s = timeout_s
        self._folder = folder
        self._environ = environ

    async def pause(self) -> str:
        if self._file is not None:
            self._file.check()
        await self._stop()
        return f'the unit "{self._unit}" is stopped'

    async def _stop(self) -> None:
        await self._do("stop")
        if (state := await self._state()) not in _DOWN:
            raise PlanRefused(
                f'the unit "{self._unit}" was stopped, but it is {state} again',
                hint=f"see what starts it ({self._words('list-dependencies', '--reverse')}), then: hybridrag apply",
            )

    @contextlib.contextmanager
    def sealed(self) -> Iterator[None]:
        argv = [*self._systemctl, "is-active", self._unit]
        try:
            told = subprocess.run(
                argv, cwd=self._folder, env=dict(self._environ), stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=self._timeout_s, check=False,
            ).stdout.strip()  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            told = "unknown"
        if told not in _DOWN:
            raise PlanRefused(
                f'the unit "{self._unit}" had to stand, but it is {told}; nothing was switched',
                hint=f"see what started it ({self._words('status')}), then: hybridrag apply",
            )
        yield

    async def resume(self, selection: Selection) -> str | None:
        changed = self._file is not None and self._file.bring(selection)
        if changed and await self._state() not in _DOWN:
            await self._stop()
        await self._do("start")
        await self._see_it_stay()
        return None if self._file is None or not selection.secrets else self._file.exposed()

    async def _see_it_stay(self) -> None:
        since = time.monotonic()
        active = None
        while active is None or time.monotonic() - active < _STAYS_S:
            state = await self._state()
            if state == "active":
                active = active or time.monotonic()
            elif state != "activating" or active is not None or time.monotonic() - since > self._timeout_s:
                raise PlanRefused(
                    f'the unit "{self._unit}" was started, but it is {state}',
                    hint=f"{self._words('status')} shows why",
                )
            await asyncio.sleep(_LOOK_S)

    async def withdraw(self) -> None:
        await self._stop()
        if self._file is not None:
            self._file.put_back()

    async def _state(self) -> str:
        return (await self._run("is-active")).said or "unknown"

    async def _do(self, verb: str) -> None:
        ended = await self._run(verb)
        if ended.code != 0:
            raise PlanRefused(
                f'{self._key}: "{self._words(verb)}" {ended}',
                hint="run it by hand to see why, then hybridrag apply",
            )

    async def _run(self, verb: str) -> Ended:
        return await run(
            f"{self._key}.unit",
            [*self._systemctl, verb, self._unit],
            timeout_s=self._timeout_s,
            folder=self._folder,
            environ=self._environ,
            limit=f"{self._key}.timeout",
        )

    def _words(self, *verb: str) -> str:
        return " ".join([*self._systemctl, *verb, self._unit])
