"""What the engine hands to the actions beside stores: who stops writers, what outlives a run, who is pointed at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from .data import BadRecord, Slot
from .facts import Facts
from .findings import Refusal
from .ports import Backend
from .room import Room
from .selection import Selection, Told


class Halter(Protocol):
    """Stops and starts whatever writes one database. Pausing and resuming may be asked twice."""

    async def pause(self) -> str:
        """Returns when nothing is written any more; words how. Raises PlanRefused, with the writer going on."""
        ...

    def sealed(self) -> AbstractContextManager[None]:
        """Within it nobody can lift the pause. Raises PlanRefused where it was lifted, or ran out, since `pause`."""
        ...

    async def resume(self, selection: Selection) -> str | None:
        """Let it go on, on the stores that serve now, and see that it does; words of what a user should know of.

        Raises PlanRefused.
        """
        ...


@runtime_checkable
class Withdrawing(Halter, Protocol):
    """One that can take a resume back, so that the stores that served before can serve again."""

    async def withdraw(self) -> None:
        """After a resume that failed: the writer stands for certain, and what resume changed is as it was.

        Raises PlanRefused where that cannot be said.
        """
        ...


@runtime_checkable
class Telling(Halter, Protocol):
    """One whose writer can be asked which embedding it uses."""

    async def embedding(self) -> Told | None:
        """What the running writer says; None where it is not there, or says nothing. Read-only, never raises."""
        ...


class Memory(Protocol):
    """What outlives a killed run, as the actions see it. Implemented by the journal."""

    def room(self) -> Room | None:
        """The volume that it lies on; see `Backend.room`."""
        ...

    def put_digests(self, migration: str, tables: dict[str, bytes]) -> None: ...

    def digests(self, migration: str) -> dict[str, bytes]: ...

    def drop_digests(self, migration: str) -> None:
        """All that is kept of a migration, of whatever state of its source; also the positions of what was left out."""
        ...

    def put_left_out(self, migration: str, positions: dict[str, bytes]) -> None:
        """Keep which records of a source stay behind, by stream (`migrate.leaving_out`)."""
        ...

    def left_out(self, migration: str) -> dict[str, bytes]: ...

    def quarantine(
        self, database: str, migration: str
    ) -> AbstractContextManager[Callable[[BadRecord], None]]:
        """Takes bad records; leaving it puts them, all at once, in the place of those that were there before.

        Left by an exception it changes nothing.
        """
        ...

    def put_refusal(self, database: str, part: str, refusal: Refusal | None) -> None:
        """Remember what the target of a part (named as its move) cannot take; None: it can take everything."""
        ...

    def quarantine_file(self, database: str, migration: str) -> str | None:
        """Where they can be read; None where there are none."""
        ...

    def open_pause(self, database: str, run: str, fingerprint: str | None) -> None: ...

    def pause_of(self, database: str) -> tuple[str, str | None] | None:
        """(run, fingerprint of the source) of an open pause."""
        ...

    def paused_since(self, database: str) -> float | None:
        """When the open pause began (time.time()); an earlier run may have opened it."""
        ...

    def close_pause(self, database: str) -> None: ...

    def begin_switch(self, database: str, migrations: Collection[str]) -> None:
        """Note that these copies get the mark of what serves, while the pointer does not name them yet."""
        ...

    def end_switch(self, database: str) -> None:
        """The pointer names them."""
        ...

    def put_served(self, database: str, records: Mapping[str, int]) -> None:
        """Remember how many records each of these streams had when it began to serve where it is."""
        ...


class Pointer(Protocol):
    """What live consumers follow to a database's backend. Implemented over the notes of the places and the registry."""

    def current(self, database: str) -> Facts: ...

    async def point(
        self,
        database: str,
        path: str,
        placement: Mapping[Slot, Backend],
        workspace: str,
        *,
        left: Mapping[frozenset[Slot], str],
        behind: bool = False,
    ) -> tuple[str, ...]:
        """Note in every place concerned what serves now; what served before is noted as kept.

        `left`: fingerprints of what served until now, by slots. `behind`: it holds records that did not come along.
        Returns in words which places could not be told that they serve no more. Raises, with nothing changed, where the
        registry cannot be written or a place that is to serve cannot be told; LeaseHeld where another run was faster.
        """
        ...

    async def retiring(self, database: str, backend: str, slots: Collection[Slot]) -> None:
        """From now on what is kept there is no way back any more; `backend` as facts name it."""
        ...

    async def let_go(self, database: str, backend: str, slots: Collection[Slot]) -> None:
        """Nothing is kept there any more."""
        ...

    def agrees(self, database: str, path: str, placement: Mapping[Slot, Backend], workspace: str) -> bool: ...
