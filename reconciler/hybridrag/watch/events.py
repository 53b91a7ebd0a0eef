"""File events of a source's folder, where the system has them; the interval is the fallback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

LOG = logging.getLogger("hybridrag.watch")
STEP_MS, DEBOUNCE_MS, FIRST_MS = 100, 500, 1000
"""Silence that ends a burst of events, the longest burst, and how soon the watch is known to be there."""


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
            begun = False
            async for changes in awatch(
                self._folder,
                step=STEP_MS,
                debounce=DEBOUNCE_MS,
                recursive=self._recursive,
                watch_filter=None,
                rust_timeout=FIRST_MS,
                yield_on_timeout=True,
            ):
                # What happened between the last look and the first of these, no event tells.
                if changes or not begun:
                    begun = True
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
