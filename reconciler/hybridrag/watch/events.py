"""File events of a source's folder, where the system has them; the interval is the fallback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

LOG = logging.getLogger("hybridrag.watch")
STEP_MS = 100


class FileEvents:
    """Sets `changed` when something happens below a folder. `start` again for a folder that was made anew."""

    def __init__(self, folder: Path, *, recursive: bool) -> None:
        self.changed = asyncio.Event()
        self.changed.set()  # whatever happened before anybody watched
        self._folder = folder
        self._recursive = recursive
        self._task: asyncio.Task[None] | None = None
        self._inode: int | None = None
        self._told: str | None = None

    def follow(self) -> None:
        """Begin, and begin anew where the folder is not the one that is watched; cheap, to be called often."""
        inode = None
        with contextlib.suppress(OSError):
            inode = self._folder.stat().st_ino
        if inode == self._inode:
            return
        self._inode = inode
        self.changed.set()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if inode is not None:
            self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            from watchfiles import awatch
        except ImportError:
            self._tell("watchfiles is not installed: pip install 'hybridrag-reconciler[watch]'")
            return
        try:
            async for _ in awatch(
                self._folder, step=STEP_MS, debounce=500, recursive=self._recursive, watch_filter=None
            ):
                self.changed.set()
        except (OSError, RuntimeError) as error:  # a limit of the system, or a folder that vanished
            self._tell(str(error))

    def _tell(self, why: str) -> None:
        if why != self._told:
            self._told = why
            LOG.warning(
                "no file events, so the source is looked through by the interval only: %s",
                why,
                extra={"event": "no_file_events"},
            )

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
