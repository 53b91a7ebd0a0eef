"""What a verification that was cut off had read already, and what the records it reads say of one another."""

from __future__ import annotations

from hybridrag.migrate.digest import NamespaceDigest
from hybridrag.migrate.references import References
from hybridrag.migrate.verifying import Held
from hybridrag.migrate.watching import Watched
from hybridrag.model.events import Warned
from hybridrag.model.ports import Reader
from hybridrag.model.services import Memory

from .base import Context

_STATE = "state"
"""Stands among the tables, which are named like streams."""


class ReadBefore(Held):
    """Tables of the target's streams, kept in the journal until all of them are proven.

    They count only while both sides are in the state in which they were made.
    """

    def __init__(self, memory: Memory, migration_id: str, state: str) -> None:
        self._memory = memory
        self._name = f"{migration_id} read"
        self._state = state.encode()
        known = self._memory.digests(self._name)
        same = known.pop(_STATE, None) == self._state
        self._tables = known if same else {}
        self.streams = frozenset(self._tables)

    @classmethod
    async def of(cls, context: Context, written: Reader) -> ReadBefore:
        """Asks for the target's present state; the source's is the one that was examined."""
        standing = await context.standing()
        state = f"{standing.fingerprint} {await written.fingerprint()}"
        return cls(context.memory, context.part.move.migration_id, state)

    def get(self, namespace: str) -> NamespaceDigest | None:
        table = self._tables.get(namespace)
        return None if table is None else NamespaceDigest.from_bytes(table)

    def put(self, namespace: str, table: NamespaceDigest) -> None:
        self._tables[namespace] = table.to_bytes()
        self._memory.put_digests(self._name, {**self._tables, _STATE: self._state})

    def drop(self) -> None:
        """They are not needed any more."""
        self._memory.drop_digests(self._name)


class Told:
    """Rules between the streams of a part, as far as the verification's own pass shows them.

    Where all records are equal, what is broken was broken in the source: it is told, and stops nothing.
    """

    def __init__(self, written: Reader) -> None:
        self._names = References()
        self.reader = Watched(written, self._names)

    def tell(self, context: Context, before: ReadBefore, *, quarantined: bool) -> None:
        """Nothing can be told where some of the streams were read by an earlier run."""
        if before.streams:
            return
        broken = self._names.broken(context.part.streams)
        found = [f"{len(missed):,} {rule.words}" for rule, missed in broken.items() if len(missed)]
        if found:
            why = "as in the source"
            if quarantined:
                why = "some or all because of records in quarantine"
            message = f"{'; '.join(found)} ({why}); hybridrag verify {context.database} names them"
            context.emit(Warned(step=context.step.id, message=message))
