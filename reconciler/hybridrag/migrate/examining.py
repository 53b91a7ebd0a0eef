"""Examine a whole source before anything is copied: what the target must hold afterwards, and which records it cannot.

Beside what a record holds (`Store.examine`), two things make it a bad one: another record of the same stream with the
same key, and, for an edge, a node that is not there or is itself a bad record. Keys are remembered as 64-bit hashes,
8 bytes each and of those streams that are being read (the nodes' also while edges are); hashes that stand twice are looked at
again, with their keys. Of records with one key the one stays that LightRAG itself uses: the last of a JSON object or a
graph; the first of a vector file, which is the one that it finds by id and keeps up to date (`nano_vectordb/dbs.py`).
"""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from hybridrag.model.data import BY_NAME, EDGE_SEPARATOR, BadRecord, Batch, Slot, printable
from hybridrag.model.findings import Examination
from hybridrag.model.ports import Reader, Store

from .digest import NamespaceDigest, record_digest
from .lanes import in_lanes
from .progress import Meter

Hashes = npt.NDArray[np.int64]
Keep = Callable[[BadRecord], None]


async def examine_source(
    reader: Reader,
    target: Store,
    namespaces: Iterable[str],
    rows: int,
    meter: Meter,
    keep: Keep | None = None,
    *,
    lanes: int = 1,
) -> tuple[dict[str, NamespaceDigest], Examination]:
    """(what the target must hold, what it cannot). `keep` is given every bad record, in full, one at a time."""
    one_at_a_time = threading.Lock()

    def keep_one(record: BadRecord) -> None:
        with one_at_a_time:
            if keep is not None:
                keep(record)

    streams = {name: _Stream(name, target, None if keep is None else keep_one) for name in namespaces}

    async def examine(stream: _Stream) -> None:
        name = stream.namespace
        nodes = streams["nodes"].held() if name == "edges" and "nodes" in streams else None
        stream.nodes = nodes
        with meter.stream(name):
            async for batch in reader.read(name, rows=rows):
                await asyncio.to_thread(stream.add, batch)
                meter.add(len(batch), batch.size, name)
            if stream.doubtful():
                async for batch in reader.read(name, rows=rows):
                    stream.look_again(batch)
                if stream.decide():
                    async for batch in reader.read(name, rows=rows):
                        stream.leave_doubles(batch)
        if name != "nodes":
            stream.forget_keys()

    await in_lanes(list(streams.values()), [examine] * lanes)
    meter.tell()
    whole = Examination()
    for stream in streams.values():
        whole.add(stream.found)
    return {name: stream.table for name, stream in streams.items()}, whole


class _Stream:
    """One stream while it is examined; `nodes` are sorted hashes of the nodes that the target will hold, for edges."""

    def __init__(self, namespace: str, target: Store, keep: Keep | None) -> None:
        self.namespace = namespace
        self.table = NamespaceDigest()
        self.found = Examination()
        self.nodes: Hashes | None = None
        self._target = target
        self._keep = keep
        self._left_out = self.found.left_out.setdefault(namespace, array("Q"))
        self._hashes = array("q")
        self._doubtful: Hashes = np.empty(0, dtype=np.int64)
        self._places: dict[str, list[int]] = {}
        self._losers: dict[int, int] = {}
        """Position of a record -> position of the one that stays."""

    def add(self, batch: Batch) -> None:
        """First look: everything but keys that stand twice."""
        self._hashes.extend(map(hash, batch.keys))
        reasons = {index: fault.reason for index, fault in batch.faults.items()}
        if self.nodes is not None:
            self._find_dangling(batch, reasons)
        found = Examination()
        good = [index for index in range(len(batch)) if index not in reasons]
        form = self._target.examine(batch.only(good), found)
        if found.refused_total:
            for index in good:
                alone = Examination()
                self._target.examine(batch.only([index]), alone)
                reasons.update((index, reason) for _, _, reason in alone.refused)
        self.found.add(Examination(lost=found.lost, carried=found.carried, carried_by=found.carried_by))
        self.table.add(form)
        for index in sorted(reasons):
            self._leave(batch, index, reasons[index])

    def _find_dangling(self, batch: Batch, reasons: dict[int, str]) -> None:
        """A hash that is not among the nodes' is surely no node of theirs."""
        ends = [key.split(EDGE_SEPARATOR) for key in batch.keys]
        whole = [index for index, pair in enumerate(ends) if len(pair) == 2]
        for side in (0, 1):
            wanted = np.fromiter((hash(ends[index][side]) for index in whole), np.int64, len(whole))
            for place in np.flatnonzero(~_among(self.nodes, wanted)).tolist():
                name = printable(ends[whole[place]][side])
                reasons.setdefault(whole[place], f'it leads to "{name}", a node that does not exist there')

    def _leave(self, batch: Batch, index: int, reason: str) -> None:
        position = batch.position - len(batch) + index + 1
        key = batch.keys[index]
        self._left_out.append(position)
        self.found.refuse(self.namespace, printable(key), f"{reason} (record {position:,})")
        if self._keep is not None:
            fault = batch.faults.get(index)
            self._keep(
                BadRecord(
                    namespace=self.namespace,
                    position=position,
                    key=key,
                    reason=reason,
                    record=batch.fields[index] if fault is None else fault.record,
                    vector=None if batch.vectors is None else batch.vectors[index],
                )
            )

    def doubtful(self) -> bool:
        """Whether hashes stand twice, after the first look."""
        ordered = np.sort(np.frombuffer(self._hashes, dtype=np.int64))
        self._doubtful = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        return bool(len(self._doubtful))

    def look_again(self, batch: Batch) -> None:
        """Second look: where the keys behind these hashes stand."""
        found = _among(self._doubtful, np.fromiter(map(hash, batch.keys), np.int64, len(batch)))
        first = batch.position - len(batch) + 1
        for index in np.flatnonzero(found).tolist():
            self._places.setdefault(batch.keys[index], []).append(first + index)

    def decide(self) -> bool:
        """Whether keys stand twice; chooses the record that stays of each."""
        stays = 0 if BY_NAME[self.namespace].slot is Slot.VECTOR else -1
        for places in self._places.values():
            self._losers.update((place, places[stays]) for place in places if place != places[stays])
        for position in self._left_out:
            self._losers.pop(position, None)
        return bool(self._losers)

    def leave_doubles(self, batch: Batch) -> None:
        """Third look: takes those that lost out of the table again."""
        first = batch.position - len(batch) + 1
        for index in range(len(batch)):
            if (stays := self._losers.get(first + index)) is None:
                continue
            form = self._target.examine(batch.only([index]), Examination())
            name = form.keys[0].encode()
            vector = b"" if form.vectors is None else form.vectors[0].tobytes()
            self.table.take_digest(name, record_digest(name, form.fields[0], vector))
            self._leave(
                batch, index, f"{self.namespace} holds a record twice: record {stays:,} has this id too"
            )

    def forget_keys(self) -> None:
        """Give their memory back."""
        self._hashes = array("q")

    def held(self) -> Hashes:
        """Sorted hashes of the keys that the target will hold."""
        ordered = np.sort(np.frombuffer(self._hashes, dtype=np.int64))
        if not self._left_out:
            return ordered
        gone = set(self._left_out)
        places = np.fromiter((place - 1 for place in gone), np.int64, len(gone))
        return np.sort(np.delete(np.frombuffer(self._hashes, dtype=np.int64), places))


def _among(ordered: Hashes | None, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Which of `wanted` stand in a sorted array."""
    if ordered is None or not len(ordered):
        return np.zeros(len(wanted), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    found: npt.NDArray[np.bool_] = ordered[places] == wanted
    return found
