"""A wish to stop, obeyed where nothing is half done: between two steps, and between two batches of one."""

from __future__ import annotations

import asyncio
import threading

from hybridrag.model.events import Emit, Event, Progress


class Stop:
    """Asked for from anywhere, obeyed by the run. `asked` never becomes false again.

    `ending`: the run ends already, for whatever reason, and must not be broken off any more.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.ending = False

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        self._asked.set()

    def obey(self) -> None:
        """Raises CancelledError when somebody asked."""
        if self.asked:
            raise asyncio.CancelledError

    def between_batches(self, emit: Emit) -> Emit:
        """The same listener; a long pass that tells it of progress, which it does after a batch, ends there."""

        def listen(event: Event) -> None:
            emit(event)
            if isinstance(event, Progress):
                self.obey()

        return listen
