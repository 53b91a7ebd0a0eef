"""What a run knows of the parts it moves: the moment at which each source was read, and what must be, and is, in the target."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from hybridrag.migrate.catching_up import apart
from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.leaving_out import LeftOut
from hybridrag.model.plan import Move
from hybridrag.model.ports import Moment, Reader, Store

Tables = Mapping[str, NamespaceDigest]


@dataclass(slots=True, kw_only=True)
class Standing:
    """One part. `fingerprint` is of the state of the source that `wanted` and `left_out` stand for.

    `moment` shows that state whatever is written meanwhile; None where the source is held still instead. `wanted` is
    what the target must hold of it, `held` what it was found to hold; None until that is known.
    """

    fingerprint: str
    moment: Moment | None = None
    wanted: Tables | None = None
    held: Tables | None = None
    left_out: LeftOut = field(default_factory=lambda: LeftOut({}))

    @property
    def settled(self) -> bool:
        """Whether the target holds this very state."""
        return self.wanted is not None and self.held is not None and not apart(self.wanted, self.held)

    @property
    def records(self) -> int:
        """Records that the target must hold."""
        return sum(table.records for table in (self.wanted or {}).values())

    def examined_id(self, move: Move) -> str:
        """Under which name the journal keeps what was found out about this state."""
        return f"{move.migration_id} {self.fingerprint[:16]}"

    def reader(self, source: Store) -> Reader:
        """Reads this state."""
        return source.reader() if self.moment is None else self.moment


class Standings:
    """All parts of a run, by the names of their moves. What is held open is let go by `release` and `close`."""

    def __init__(self) -> None:
        self.paused: dict[str, float] = {}
        """For how many seconds the writer of a database stood, by its name."""
        self.stopped: dict[str, str] = {}
        """How it was stopped, in words."""
        self._known: dict[str, Standing] = {}
        self._open: dict[str, contextlib.AsyncExitStack] = {}

    async def of(self, move: Move, source: Store, *, live: bool) -> Standing:
        """Of one part; the first time it is asked for, `live` looks at its source at one moment."""
        if move.id not in self._known and live:
            async with self.later(move, source):
                pass
        return self._known.setdefault(move.id, Standing(fingerprint=move.fingerprint))

    @contextlib.asynccontextmanager
    async def later(self, move: Move, source: Store) -> AsyncIterator[Standing]:
        """A moment from now on; where the block ends well, it takes the place of the one before."""
        async with contextlib.AsyncExitStack() as stack:
            moment = await stack.enter_async_context(source.reader().snapshot())
            standing = Standing(fingerprint=await moment.fingerprint(), moment=moment)
            yield standing
            before = self._open.pop(move.id, None)
            self._known[move.id], self._open[move.id] = standing, stack.pop_all()
        if before is not None:
            await before.aclose()

    def put(self, move: Move, standing: Standing) -> None:
        """What is known now; the moment before stays open."""
        self._known[move.id] = standing

    async def release(self, name: str) -> None:
        """Forget a part."""
        self._known.pop(name, None)
        if stack := self._open.pop(name, None):
            await stack.aclose()

    async def close(self) -> None:
        for name in list(self._open):
            await self.release(name)
