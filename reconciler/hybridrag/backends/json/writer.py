"""Writes a database as LightRAG's files: staged batch by batch (`staging.py`), closed at the end, published by `mark`."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from hybridrag.backends.kit.marks import Course, Occupied, course
from hybridrag.backends.kit.refusals import cannot_be_written
from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.model.data import BY_NAME, OTHER_STORES, Batch, Slot, streams_of
from hybridrag.model.findings import Examination
from hybridrag.model.marks import MarkState
from hybridrag.model.plan import KEPT
from hybridrag.model.ports import Encoded
from hybridrag.model.selection import Embedding

from .files import GRAPH_FILE, file_of
from .graph_writer import ORDER_BYTES, GraphText
from .kv_writer import kv_end, kv_text, other_texts
from .publishing import explain, file_names, locked, shown, written_names
from .records import writable
from .staging import Manifest, Staging, load, manifests, others_in, save, staging_folder, tidy, whole
from .vector_writer import vector_end, vector_text

T = TypeVar("T")
_NODES, _EDGES, _ORDER = (f"{GRAPH_FILE}.{part}" for part in ("nodes", "edges", "order"))
_COPY_BYTES = 1 << 20


def _matrix(name: str) -> str:
    return f"{name}.matrix"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_COPY_BYTES):
            yield block


async def _to_the_end(work: Callable[[], T]) -> T:
    """Run in a thread; who is cancelled meanwhile waits until it has ended, so that no file is written behind its back."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


class JsonWriter:
    """See `model.ports.Writer`. Lives inside one session that holds the locks of its slots."""

    def __init__(
        self,
        folder: Path,
        slots: Collection[Slot],
        embedding: Embedding,
        migration_id: str,
        fingerprint: str,
        replaces: bool,
    ) -> None:
        self._folder = folder
        self._slots = slots
        self._embedding = embedding
        self._migration_id = migration_id
        self._fingerprint = fingerprint
        self._replaces = replaces
        self._opened: Staging | None = None
        self._graph = GraphText([], b"")
        self._begun: set[str] = set()

    @property
    def _staging(self) -> Staging:
        if self._opened is None:
            raise RuntimeError("prepare() comes first")
        return self._opened

    async def prepare(self) -> dict[str, int]:
        """See `Writer.prepare`. An earlier part of ours for another state of the source is removed first."""
        return await _to_the_end(self._prepare)

    def _prepare(self) -> dict[str, int]:
        found = manifests(self._folder, self._slots)
        kept = whole(self._folder, self._slots)
        for manifest in found:
            ours = manifest.migration == self._migration_id and manifest in kept
            if ours and self._course(manifest) is Course.CONTINUE:
                return self._resume(manifest)
        for manifest in found:
            # What was switched to is a note of what the files were; they are moved aside when the new ones are.
            if manifest.state is not MarkState.SWITCHED:
                self._clear(manifest)
        self._refuse_foreign_data()
        begun = Manifest(
            migration=self._migration_id,
            source_fingerprint=self._fingerprint,
            slots=tuple(sorted(self._slots, key=lambda slot: slot.value)),
            replaces=self._replaces,
            number=max((manifest.number for manifest in found), default=0) + 1,
        )
        self._opened = Staging.begin(self._folder, begun)
        return {}

    def _resume(self, manifest: Manifest) -> dict[str, int]:
        if manifest.replaces != self._replaces:
            place = staging_folder(self._folder, manifest.migration)
            manifest = save(place, manifest.model_copy(update={"replaces": self._replaces}))
        self._opened = Staging(self._folder, manifest)
        if manifest.state is MarkState.COPYING:
            self._opened.rewind()
            order = self._opened.place / _ORDER
            self._graph = GraphText(list(manifest.keys), order.read_bytes() if order.exists() else b"")
        self._begun.update(manifest.records)
        return dict(manifest.records)

    def _clear(self, manifest: Manifest) -> None:
        """Remove an earlier part of ours."""
        self._course(manifest)
        with locked(self._folder, set(manifest.slots) - set(self._slots)):
            again = load(staging_folder(self._folder, manifest.migration))
            if again is not None and again.state is MarkState.PUBLISHING:
                raise self._in_use(
                    "some of its files were already replaced by an earlier migration that was cut off"
                )
            shutil.rmtree(staging_folder(self._folder, manifest.migration))

    def _refuse_foreign_data(self) -> None:
        for name in file_names(self._slots):
            if not self._replaces and (self._folder / name).exists():
                raise self._in_use(f'it already holds "{name}", which is not ours')

    def _in_use(self, why: str) -> PlanRefused:
        return cannot_be_written(shown(self._folder), why, way_out="path")

    def _course(self, manifest: Manifest) -> Course:
        try:
            replaces = KEPT if self._replaces else None
            return course(manifest.mark, self._migration_id, self._fingerprint, replaces)
        except Occupied as occupied:
            raise self._in_use(str(occupied)) from None

    def encode(self, batch: Batch) -> Encoded:
        """See `Writer.encode`. What is kept aside (matrix, order of the nodes) stands at the end of the data."""
        examination = Examination()
        form = writable(batch, examination, self._embedding.dim)
        if examination.refused_total:
            _, key, reason = examination.refused[0]
            raise BackendUnavailable(
                f'{batch.namespace} "{key}" cannot be written: {reason}', hint="run hybridrag plan again"
            )
        if batch.namespace == OTHER_STORES:  # into several files, which are known when it is written
            return Encoded(form, None)
        return Encoded(form, b"".join(self._encode(form)))

    def _encode(self, form: Batch) -> Iterable[bytes]:
        first = form.namespace not in self._begun  # positions do not tell: records may have been left out
        self._begun.add(form.namespace)
        if BY_NAME[form.namespace].slot is Slot.VECTOR:
            return vector_text(form, self._embedding.dim, first=first)
        if form.namespace == "nodes":
            return self._graph.nodes(form)
        if form.namespace == "edges":
            return (self._graph.edges(form),)
        return kv_text(form, first=first)

    async def write(self, encoded: Encoded) -> None:
        """See `Writer.write`."""
        await _to_the_end(lambda: self._write(encoded))

    def _write(self, encoded: Encoded) -> None:
        batch, data = encoded.batch, memoryview(encoded.data or b"")
        name = file_of(batch.namespace)
        if batch.namespace == OTHER_STORES:
            parts: dict[str, bytes | memoryview] = {**other_texts(batch, others_in(self._staging.manifest))}
        elif BY_NAME[batch.namespace].slot is Slot.VECTOR:
            border = len(data) - len(batch) * self._embedding.dim * 4
            parts = {name: data[:border], _matrix(name): data[border:]}
        elif batch.namespace == "nodes":
            border = len(data) - len(batch) * ORDER_BYTES
            parts = {_NODES: data[:border], _ORDER: data[border:]}
        else:
            parts = {_EDGES if batch.namespace == "edges" else name: data}
        for part, text in parts.items():
            self._staging.append(part, [text])
        self._staging.commit(batch.namespace, batch.position, list(self._graph.keys))

    async def finish(self, report: Callable[[str], None]) -> None:
        """See `Writer.finish`."""
        if self._staging.manifest.state is MarkState.COPYING:
            loop = asyncio.get_running_loop()

            def tell(phase: str) -> None:
                loop.call_soon_threadsafe(report, phase)

            await _to_the_end(lambda: self._finish(tell))

    def _finish(self, report: Callable[[str], None]) -> None:
        staging = self._staging
        records = staging.manifest.records
        for namespace in streams_of(self._slots):
            if namespace == OTHER_STORES:
                for name in others_in(staging.manifest):
                    staging.append(name, [kv_end(1)])
                continue
            name, count = file_of(namespace), records.get(namespace, 0)
            slot = BY_NAME[namespace].slot
            if slot is Slot.VECTOR:
                report(f"writing the matrix of {name}")
                matrix = staging.place / _matrix(name)
                staging.append(name, vector_end(count, self._embedding.dim, matrix))
            elif slot is not Slot.GRAPH:
                staging.append(name, [kv_end(count)])
        if Slot.GRAPH in self._slots:
            report(f"writing {GRAPH_FILE}")
            self._assemble()
        staging.flush()
        staging.close()
        staging.manifest = save(
            staging.place, staging.manifest.model_copy(update={"state": MarkState.COPIED})
        )
        tidy(staging.place, keep=written_names(staging.manifest))

    def _assemble(self) -> None:
        head, tail = self._graph.frame()
        self._staging.append(GRAPH_FILE, [head])
        for part in (_NODES, _EDGES):
            path = self._staging.place / part
            if path.exists():
                self._staging.append(GRAPH_FILE, _blocks(path))
        self._staging.append(GRAPH_FILE, [tail])

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


class JsonWriterSession:
    """Async context manager: the folder, the locks of its slots, one writer."""

    def __init__(
        self,
        folder: Path,
        slots: Collection[Slot],
        embedding: Embedding,
        migration_id: str,
        fingerprint: str,
        *,
        replaces: bool,
    ) -> None:
        self._folder = folder
        self._slots = slots
        self._writer = JsonWriter(folder, slots, embedding, migration_id, fingerprint, replaces)
        self._stack = contextlib.ExitStack()

    async def __aenter__(self) -> JsonWriter:
        try:
            await _to_the_end(lambda: self._stack.enter_context(locked(self._folder, self._slots)))
        except BaseException as error:
            self._stack.close()
            if isinstance(error, OSError):
                raise explain(error, self._folder) from error
            raise
        return self._writer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._writer.close()
        self._stack.close()
        if isinstance(error, OSError):
            raise explain(error, self._folder) from error
