"""`writer.kind: command`: commands of the user's stop the writer and let it go on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from hybridrag.adapters.env_file import EnvFile
from hybridrag.errors import PlanRefused
from hybridrag.model.selection import Selection

from .commands import run


class CommandHalter:
    """See `model.services.Halter`. `timeout_s` holds for each command; what they print last is shown when they fail."""

    def __init__(
        self,
        database: str,
        *,
        pause: tuple[str, ...],
        resume: tuple[str, ...],
        check: tuple[str, ...] | None = None,
        env_file: EnvFile | None = None,
        timeout_s: int,
        folder: Path,
        environ: Mapping[str, str],
    ) -> None:
        self._key = f"databases.{database}.writer"
        self._pause = pause
        self._resume = resume
        self._check = check
        self._file = env_file
        self._timeout_s = timeout_s
        self._folder = folder
        self._environ = environ

    async def pause(self) -> str:
        if self._file is not None:
            self._file.check()
        await self._run("pause", self._pause)
        if self._check is not None:
            await self._run("check", self._check)
        return "the writer is stopped"

    @contextlib.contextmanager
    def sealed(self) -> Iterator[None]:
        """`check` is asked once more: nobody else knows whether the writer still stands."""
        if self._check is not None:
            try:
                done = subprocess.run(
                    self._check,
                    cwd=self._folder,
                    env=dict(self._environ),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=self._timeout_s,
                    check=False,
                )
                stands = done.returncode == 0
            except (OSError, subprocess.TimeoutExpired):
                stands = False
            if not stands:
                raise PlanRefused(
                    f'{self._key}.check: "{self._check[0]}" says that the writer does not stand any more; nothing was '
                    "switched",
                    hint="see what started it, then: hybridrag apply",
                )
        yield

    async def resume(self, selection: Selection) -> str | None:
        if self._file is not None:
            self._file.bring(selection)
        await self._run("resume", self._resume)
        return None if self._file is None or not selection.secrets else self._file.exposed()

    async def withdraw(self) -> None:
        await self._run("pause", self._pause)
        if self._check is not None:
            await self._run("check", self._check)
        if self._file is not None:
            self._file.put_back()

    async def _run(self, which: str, argv: tuple[str, ...]) -> None:
        key = f"{self._key}.{which}"
        ended = await run(
            key,
            argv,
            timeout_s=self._timeout_s,
            folder=self._folder,
            environ=self._environ,
            limit=f"{self._key}.timeout",
        )
        if ended.code != 0:
            raise PlanRefused(
                f'{key}: "{argv[0]}" {ended}', hint="run it by hand to see why, then hybridrag apply"
            )
