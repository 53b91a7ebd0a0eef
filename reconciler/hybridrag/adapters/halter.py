"""Stop and start what writes a database, by the commands that the spec names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from hybridrag.errors import PlanRefused
from hybridrag.model.ports import Selection


class CommandHalter:
    """See `model.services.Halter`. `timeout_s` holds for each command; what they print is shown when they fail."""

    def __init__(
        self,
        database: str,
        *,
        pause: tuple[str, ...],
        resume: tuple[str, ...],
        timeout_s: int,
        folder: Path,
        environ: Mapping[str, str],
    ) -> None:
        self._database = database
        self._pause = pause
        self._resume = resume
        self._timeout_s = timeout_s
        self._folder = folder
        self._environ = environ

    async def pause(self) -> str:
        await self._run("pause", self._pause)
        return "the writer is stopped"

    def sealed(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    async def resume(self, selection: Selection) -> None:
        await self._run("resume", self._resume)

    async def _run(self, which: str, argv: tuple[str, ...]) -> None:
        key = f"databases.{self._database}.writer.{which}"
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=self._folder,
                env=dict(self._environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        except OSError as error:
            raise PlanRefused(
                f'{key}: "{argv[0]}" cannot be run: {error.strerror}', hint=f"correct {key} in the spec"
            ) from None
        try:
            told, _ = await asyncio.wait_for(process.communicate(), self._timeout_s)
        except asyncio.TimeoutError:
            raise PlanRefused(
                f'{key}: "{argv[0]}" did not end within {self._timeout_s} s',
                hint=f"run it by hand, or raise databases.{self._database}.writer.timeout",
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            last = told.decode("utf-8", "replace").strip().splitlines()[-1:]
            said = f": {last[0][:200]}" if last else ""
            raise PlanRefused(
                f'{key}: "{argv[0]}" ended with exit code {process.returncode}{said}',
                hint="run it by hand to see why, then hybridrag apply",
            )
