"""Resolve secret references at connect time. The only place that reads one."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from hybridrag.errors import SpecInvalid
from hybridrag.model.secret import Secret, SecretRef

COMMAND_TIMEOUT_S = 30


class Secrets:
    """References against one environment: its variables (process and `.env`) and the spec's folder."""

    def __init__(self, environ: Mapping[str, str], base_dir: Path) -> None:
        self._environ = environ
        self._base_dir = base_dir

    def resolve(self, ref: SecretRef, *, used_by: str) -> Secret:
        """The secret's value. Raises SpecInvalid naming the reference, never the value."""
        if ref.env is not None:
            if not (value := self._environ.get(ref.env)):
                raise SpecInvalid(
                    f'{used_by} refers to the environment variable "{ref.env}", which is not set',
                    hint=f"export {ref.env}=…, or put it into .env beside the spec",
                )
            return Secret(value)
        if ref.file is not None:
            return Secret(self._first_line(self._file(ref.file.expanduser(), used_by), used_by))
        return Secret(self._first_line(self._command(ref.command or (), used_by), used_by))

    def _file(self, path: Path, used_by: str) -> str:
        path = path if path.is_absolute() else self._base_dir / path
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise SpecInvalid(
                f'{used_by} refers to the file "{path}", which cannot be read: {reason}',
                hint="create it with mode 0600",
            ) from None

    def _command(self, argv: tuple[str, ...], used_by: str) -> str:
        try:
            done = subprocess.run(  # the user's own command, as an argv list
                argv,
                cwd=self._base_dir,
                capture_output=True,
                encoding="utf-8",
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            done = None
        if done is None or done.returncode != 0:
            ended = "could not be run" if done is None else f"ended with exit code {done.returncode}"
            raise SpecInvalid(f'{used_by}: the command "{argv[0]}" {ended}', hint="run it by hand to see why")
        return done.stdout

    @staticmethod
    def _first_line(text: str, used_by: str) -> str:
        # Not splitlines(), which also ends a line at characters that a password may hold.
        line = text.partition("\n")[0].removesuffix("\r")
        if not line:
            raise SpecInvalid(
                f"{used_by} refers to an empty secret", hint="its first line must hold the value"
            )
        return line
