"""The fence of a run: what tells it, and whatever it writes to, that another run has taken its lease over.

Every holder of an environment's lease has a larger number than the one before. Who writes outside the journal shows the
number there, and asks before it writes; a run that slept past its lease is refused, whatever it was in the middle of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fence:
    """`state` names the journal, `number` the holder. `check` raises LeaseHeld when there is a later holder.

    `guard` checks as well, and nobody becomes a later holder while it is open.
    """

    state: str
    number: int
    check: Callable[[], None]
    guard: Callable[[], contextlib.AbstractContextManager[None]]

    @property
    def label(self) -> str:
        return f"{self.state}.{self.number}"

    def outranks(self, label: str) -> bool:
        """Whether a label is that of an earlier holder of the same lease."""
        state, _, number = label.partition(".")
        return state == self.state and number.isdecimal() and int(number) < self.number


CURRENT: ContextVar[Fence | None] = ContextVar("fence", default=None)
"""That of the run in which we are; None outside of one."""


def check() -> None:
    """Raises LeaseHeld when the run in which we are was taken over."""
    fence = CURRENT.get()
    if fence is not None:
        fence.check()


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """While open, the run in which we are cannot be taken over. Raises LeaseHeld when it was."""
    fence = CURRENT.get()
    with fence.guard() if fence else contextlib.nullcontext():
        yield
