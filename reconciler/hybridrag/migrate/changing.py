"""Bring a finished copy up to a later state of its source by the records that differ alone; nothing else is read.

`Changes` are those records as they were and as they are. As they were, they are taken out of the table of digests that
the target holds; as they are, they are put in. So the table of the later state comes from the source alone, and what
was written is read back from the target and compared. Everything is looked at before anything is written: a record that
cannot be held, a key twice, an edge without its node raise `NeedsWholePass`, and the rules of `examining.py` decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hybridrag.errors import SourceUnreadable, VerificationFailed
from hybridrag.model.data import EDGE_SEPARATOR, Batch
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Changes, Mending, Patcher, Reader, Store

from .catching_up import CHUNK, Delta, digests_of
from .digest import NamespaceDigest
from .progress import Meter

MOST = 100_000
"""Records of a stream whose digests are held; where more differ, a whole pass costs no more."""


class NeedsWholePass(Exception):
    """What differs cannot be judged by itself."""


@dataclass(slots=True)
class Change:
    """One stream: digests by key of the records that differ, as they were and as they are."""

    before: dict[str, bytes] = field(default_factory=dict)
    after: dict[str, bytes] = field(default_factory=dict)

    @property
    def gone(self) -> list[str]:
        return [key for key in self.before if key not in self.after]

    @property
    def new(self) -> list[str]:
        return [key for key in self.after if key not in self.before]

    @property
    def changed(self) -> list[str]:
        return [key for key, digest in self.after.items() if self.before.get(key) != digest]


async def look_at(
    changes: Changes, target: Store, mending: Mending, namespaces: Sequence[str], rows: int, *, lossy: bool
) -> dict[str, Change]:
    """What is to be done, by stream. Nothing is written. Raises NeedsWholePass.

    `lossy`: fields that the target has no place for may be left behind.
    """
    found: dict[str, Change] = {}
    for name in namespaces:
        found[name] = Change(
            await _digests(changes.before, target, name, rows, lossy),
            await _digests(changes.after, target, name, rows, lossy),
        )
        # A key that is new among those that differ, and yet is there, stands twice in the source now.
        if await _present(mending, name, found[name].new):
            raise NeedsWholePass
    if "edges" in found:
        await _check_ends(found["nodes"], found["edges"], mending)
    return found


async def _digests(reader: Reader, target: Store, name: str, rows: int, lossy: bool) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    records = 0
    try:
        async for batch in reader.read(name, rows=rows):
            said = Examination()
            form = target.examine(batch, said)
            if batch.faults or said.refused_total or (said.lost and not lossy):
                raise NeedsWholePass
            records += len(form)
            digests.update(digests_of(form))
            if len(digests) != records or records > MOST:
                raise NeedsWholePass
    except SourceUnreadable:
        raise NeedsWholePass from None
    return digests


async def _present(mending: Mending, name: str, keys: Sequence[str]) -> set[str]:
    """Those of the keys that the target holds."""
    found: set[str] = set()
    for start in range(0, len(keys), CHUNK):
        found.update((await mending.fetch(name, keys[start : start + CHUNK])).keys)
    return found


async def _check_ends(nodes: Change, edges: Change, mending: Mending) -> None:
    """Raises NeedsWholePass where an edge would lead to a node that is not there."""
    gone, edges_gone = set(nodes.gone), set(edges.gone)
    ends = {end for key in edges.after for end in key.split(EDGE_SEPARATOR)}
    elsewhere = sorted(ends - nodes.after.keys())
    if not gone.isdisjoint(ends) or len(await _present(mending, "nodes", elsewhere)) != len(elsewhere):
        raise NeedsWholePass
    if not gone:
        return
    async for keys in mending.keys("edges"):
        for key in keys:
            if key not in edges_gone and not gone.isdisjoint(key.split(EDGE_SEPARATOR)):
                raise NeedsWholePass


async def carry(
    found: Mapping[str, Change],
    changes: Changes,
    target: Store,
    mending: Mending,
    patcher: Patcher,
    tables: Mapping[str, NamespaceDigest],
    rows: int,
    meter: Meter,
) -> Delta:
    """Write what differs and read it back; `tables` is brought from the earlier state to the later one.

    Streams are patched in copy order, removals go the other way round. Raises VerificationFailed.
    """
    delta = Delta()
    for name, change in found.items():
        wanted = frozenset(change.changed)
        if not wanted:
            continue
        async for raw in changes.after.read(name, rows=rows):
            form = target.examine(raw, Examination())
            batch = form.only([index for index, key in enumerate(form.keys) if key in wanted])
            for start in range(0, len(batch), CHUNK):
                part = batch.only(range(start, min(len(batch), start + CHUNK)))
                await _put(part, change, mending, patcher)
                meter.add(len(part), part.size)
        delta.put += len(wanted)
    for name, change in reversed(list(found.items())):
        gone = change.gone
        for start in range(0, len(gone), CHUNK):
            await patcher.remove(name, gone[start : start + CHUNK])
        if still := await _present(mending, name, gone):
            raise _apart(name, still)
        delta.removed += len(gone)
        for key, digest in change.before.items():
            tables[name].take_digest(key.encode(), digest)
        for key, digest in change.after.items():
            tables[name].add_digest(key.encode(), digest)
    meter.tell()
    return delta


async def _put(batch: Batch, change: Change, mending: Mending, patcher: Patcher) -> None:
    await patcher.put(batch)
    back = digests_of(await mending.fetch(batch.namespace, batch.keys))
    if other := [key for key in batch.keys if back.get(key) != change.after[key]]:
        raise _apart(batch.namespace, other)


def _apart(name: str, keys: Sequence[str] | set[str]) -> VerificationFailed:
    return VerificationFailed(
        f"{len(keys):,} records of {name} are not in the target as they were just written; nothing was switched",
        hint="run hybridrag apply again; it compares record by record",
    )
