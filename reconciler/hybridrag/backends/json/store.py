"""One LightRAG database in JSON files: observed and read here, written by nobody but LightRAG."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from hybridrag.errors import NotFound, PlanRefused, SourceUnreadable
from hybridrag.migrate.threads import ahead
from hybridrag.model.data import ALL_SLOTS, BY_NAME, Batch, Slot, streams_of
from hybridrag.model.facts import Facts, Value
from hybridrag.model.ports import (
    Embedding,
    Examination,
    Glance,
    KnownCounts,
    Selection,
    Store,
    WriterSession,
)

from . import files
from .counting import count_records
from .glance import glance_folder, remembered
from .graphml import read_graph
from .kv import read_kv
from .vectors import read_vectors


class JsonReader:
    """Reads the files as they are; `fingerprint` tells whether anybody wrote meanwhile."""

    def __init__(self, folder: Path, names: Collection[str] = files.FILES) -> None:
        self._folder = folder
        self._names = names

    async def fingerprint(self) -> str:
        return files.fingerprint(self._folder, self._names)

    async def unfinished(self) -> list[str]:
        return files.unfinished_writes(self._folder)

    def read(self, namespace: str, *, skip: int = 0, rows: int = 1000) -> AsyncIterator[Batch]:
        return ahead(lambda: self._stream(namespace, skip, rows))

    def _stream(self, namespace: str, skip: int, rows: int) -> Iterator[Batch]:
        path = self._folder / files.file_of(namespace)
        slot = BY_NAME[namespace].slot
        if slot is Slot.VECTOR:
            return read_vectors(path, namespace, skip=skip, rows=rows)
        if slot is Slot.GRAPH:
            return read_graph(path, namespace, skip=skip, rows=rows)
        return read_kv(path, namespace, skip=skip, rows=rows)


def no_counts(folder: str) -> Mapping[str, tuple[str, int]]:
    """Nothing was counted before."""
    return {}


class JsonStore:
    """The files in one folder. JSON keeps every field as it is, so nothing is represented differently.

    `counts`: what was counted before, so that an unchanged file is not counted again.
    """

    def __init__(
        self,
        backend: str,
        folder: Path,
        embedding: Embedding,
        slots: frozenset[Slot] = ALL_SLOTS,
        counts: KnownCounts = no_counts,
    ) -> None:
        self._backend = backend
        self._folder = folder
        self._embedding = embedding
        self._slots = slots
        self._names = frozenset(files.file_of(name) for name in streams_of(slots))
        self._counts = counts

    @property
    def backend(self) -> str:
        return self._backend

    @property
    def slots(self) -> frozenset[Slot]:
        return self._slots

    async def observe(self) -> tuple[Facts, Facts]:
        return await asyncio.to_thread(self._observe)

    def _observe(self) -> tuple[Facts, Facts]:
        facts: dict[str, Value] = {"exists": True}
        details: dict[str, Value] = {}
        try:
            paths = files.present(self._folder, self._names)
        except NotFound as error:
            empty = self._folder.is_dir() and not any(self._folder.iterdir())
            return {"exists": False, "missing": error.what, "empty": empty or None}, {}
        known = self._counts(str(self._folder))
        total = 0
        for path in paths:
            identity, size = files.identity(path), path.stat().st_size
            total += size
            details[f"size/{path.name}"] = size
            if reason := files.damage(path):
                facts[f"damaged/{path.name}"] = reason
                continue
            if path.name.startswith("vdb_"):
                facts[f"dim/{path.name}"] = files.vector_dim(path)
            try:
                counted = remembered(path, identity, known) or count_records(path)
            except SourceUnreadable as error:
                facts[f"damaged/{path.name}"] = error.what
                continue
            for namespace, count in counted.items():
                facts[f"records/{namespace}"] = count
                if files.identity(path) == identity:
                    details[f"counted/{namespace}"] = identity
        if place := files.anchor(self._folder):
            facts["anchor"] = place
        facts["bytes"] = total
        facts["fingerprint"] = files.fingerprint(self._folder, self._names)
        unfinished = files.unfinished_writes(self._folder)
        facts["unfinished_writes"] = ", ".join(unfinished) or None
        return facts, details

    async def glance(self, others: Sequence[Store] = ()) -> list[Glance]:
        known = self._counts(str(self._folder))
        first = await asyncio.to_thread(glance_folder, self._folder, self._embedding.dim, known, self._names)
        return [first, *[(await other.glance())[0] for other in others]]

    def selection(self) -> Selection:
        return Selection(
            kv="JsonKVStorage" if Slot.KV in self._slots else None,
            vector="NanoVectorDBStorage" if Slot.VECTOR in self._slots else None,
            graph="NetworkXStorage" if Slot.GRAPH in self._slots else None,
            doc_status="JsonDocStatusStorage" if Slot.DOC_STATUS in self._slots else None,
            working_dir=str(self._folder),
        )

    def reader(self) -> JsonReader:
        return JsonReader(self._folder, self._names)

    def examine(self, batch: Batch, into: Examination) -> Batch:
        return batch

    async def related(self) -> list[str]:
        return []

    def open_writer(
        self, migration_id: str, fingerprint: str, *, replaces: str | None = None
    ) -> WriterSession:
        raise PlanRefused(
            f'backend "{self._backend}" (json) cannot be the target of a migration',
            hint="name a postgres backend in databases.<name>.backend",
        )

    async def mark(self, migration_id: str, state: str) -> None:
        """JSON files carry no marks; the source is never modified."""

    async def close(self) -> None:
        """Nothing is held open."""
