"""One LightRAG database in JSON files: observed and read here; `writer.py` writes one, `publishing.py` puts it in place."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from hybridrag.errors import NotFound, PlanRefused, SourceUnreadable
from hybridrag.migrate.threads import ahead, until
from hybridrag.model.address import Addresses, place_facts
from hybridrag.model.data import ALL_SLOTS, BY_NAME, OTHER_STORES, Batch, Slot, Vectors, streams_of
from hybridrag.model.facts import Facts, Value, digest_of
from hybridrag.model.findings import Examination, Glance, Nearest
from hybridrag.model.marks import MarkState
from hybridrag.model.notes import Note, Notes
from hybridrag.model.ports import Changes, KnownCounts, Reader, Store
from hybridrag.model.selection import Embedding, Selection

from . import files, notes, publishing, records, whereabouts
from .counting import count_records
from .differing import Known, same, write_differing
from .glance import glance_folder, remembered
from .graphml import read_graph
from .kv import read_kv, read_other
from .nearest import nearest
from .snapshot import linked
from .staging import FOLDER, current, load, others_in, staging_folder, whole
from .vectors import read_vectors
from .writer import JsonWriterSession


class JsonReader:
    """Reads the files as they are; `fingerprint` tells whether anybody wrote meanwhile."""

    def __init__(self, folder: Path, names: Collection[str] = files.ALL_FILES) -> None:
        self._folder = folder
        self._names = names

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[JsonMoment]:
        """Links to the files as they are now, in `.hybridrag` beside them; see `snapshot.py`."""
        with linked(self._folder, self._names) as place:
            yield JsonMoment(place, self._names, self._folder)

    async def fingerprint(self) -> str:
        return files.fingerprint(self._folder, self._names)

    async def unfinished(self) -> list[str]:
        return files.unfinished_writes(self._folder)

    def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        return ahead(lambda: until(self._stream(namespace, skip, rows), stop))

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _others(self) -> list[Path]:
        """Files of stores that are not LightRAG's own."""
        return files.other_files(self._folder)

    def _stream(self, namespace: str, skip: int, rows: int) -> Iterator[Batch]:
        if namespace == OTHER_STORES:
            return read_other(self._others(), skip=skip, rows=rows)
        path = self._path(files.file_of(namespace))
        slot = BY_NAME[namespace].slot
        if slot is Slot.VECTOR:
            return read_vectors(path, namespace, skip=skip, rows=rows)
        if slot is Slot.GRAPH:
            return read_graph(path, namespace, skip=skip, rows=rows)
        return read_kv(path, namespace, skip=skip, rows=rows)


class JsonMoment(JsonReader):
    """Files that were linked. LightRAG 1.5 replaces its files, 1.4 writes them in place: then there is no such moment."""

    def __init__(self, place: Path, names: Collection[str], source: Path) -> None:
        super().__init__(place, names)
        self._source = source
        self._state = files.fingerprint(place, names)
        self._known = Known()

    async def kept(self) -> None:
        if await self.fingerprint() != self._state:
            raise PlanRefused(
                f'files in "{self._source}" were written in place while they were copied; nothing was switched',
                hint="stop whatever writes them (LightRAG 1.4 does not replace its files), then run hybridrag apply",
            )

    async def prepare(self) -> None:
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        for path in files.present(self._folder, self._names):
            with contextlib.suppress(ValueError, SourceUnreadable, OSError):
                self._known.look(path)

    @contextlib.asynccontextmanager
    async def until(self, later: Reader) -> AsyncIterator[Changes | None]:
        with tempfile.TemporaryDirectory(prefix="delta-", dir=self._folder) as place:
            yield await asyncio.to_thread(self._until, later, Path(place))

    def _until(self, later: Reader, place: Path) -> Changes | None:
        if not isinstance(later, JsonReader):
            return None
        was, now = place / "was", place / "now"
        was.mkdir()
        now.mkdir()
        try:
            others = {path.name for place in (self, later) for path in place._others()}
            names = {*self._names, *(others if files.OTHER_FILES in self._names else ())}
            for name in sorted(names - {files.OTHER_FILES}):
                before, after = self._path(name), later._path(name)
                if not same(before, after):
                    write_differing(before, after, self._known, was, now)
            written_over = files.fingerprint(self._folder, self._names) != self._state
        except (ValueError, SourceUnreadable, OSError):  # also what nobody thought of
            return None
        if isinstance(later, JsonMoment):
            later._known = self._known
        return None if written_over else Changes(JsonReader(was, self._names), JsonReader(now, self._names))


def no_counts(folder: str) -> Mapping[str, tuple[str, int]]:
    """Nothing was counted before."""
    return {}


class WrittenReader(JsonReader):
    """Reads what a migration has written, each file from where it lies: still staged, or published already."""

    def __init__(self, folder: Path, names: Collection[str], staged: Path, others: Sequence[str]) -> None:
        super().__init__(folder, names)
        self._staged = staged
        self._written = others

    def _others(self) -> list[Path]:
        return [self._path(name) for name in self._written]

    def _path(self, name: str) -> Path:
        staged = self._staged / name
        return staged if staged.is_file() else super()._path(name)

    async def fingerprint(self) -> str:
        own = sorted(set(self._names) - {files.OTHER_FILES})
        stats = {name: self._path(name).stat() for name in (*own, *self._written)}
        return digest_of(
            {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()}
        )

    async def unfinished(self) -> list[str]:
        return []


class JsonStore:
    """The files in one folder; `records.py` and `halves.py` say what they hold differently.

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
        marks, details = self._marks()
        marks.update(place_facts(whereabouts.addresses(self._folder, self._slots)))
        try:
            paths = files.present(self._folder, self._names)
        except NotFound as error:
            empty = self._folder.is_dir() and all(path.name == FOLDER for path in self._folder.iterdir())
            return {"exists": False, "missing": error.what, "empty": empty or None, **marks}, details
        facts: dict[str, Value] = {"exists": True, **marks}
        there = {path.name for path in paths}
        # LightRAG makes some files only once they hold something.
        absent = [name for name in streams_of(self._slots) if files.file_of(name) not in there]
        facts.update({f"records/{name}": 0 for name in absent})
        known = self._counts(str(self._folder))
        total = 0
        for path in paths:
            size = path.stat().st_size if path.is_file() else 0
            total += size
            details[f"size/{path.name}"] = size
            try:
                reason = files.damage(path)
            except OSError as error:
                reason = f"it cannot be read: {error.strerror}"
            if reason is not None:
                facts[f"damaged/{path.name}"] = reason
                continue
            if files.blank(path):
                facts[f"blank/{path.name}"] = True
            identity = files.identity(path)
            if path.name.startswith("vdb_"):
                facts[f"dim/{path.name}"] = files.vector_dim(path)
            try:
                counted = remembered(path, identity, known) or count_records(path)
            except SourceUnreadable as error:
                facts[f"damaged/{path.name}"] = error.what
                continue
            if OTHER_STORES in counted:
                facts[f"other/{path.name}"] = counted[OTHER_STORES]
                facts[f"records/{OTHER_STORES}"] = counted[OTHER_STORES] + int(
                    facts[f"records/{OTHER_STORES}"] or 0
                )
                continue
            for namespace, count in counted.items():
                facts[f"records/{namespace}"] = count
                if files.identity(path) == identity:
                    details[f"counted/{namespace}"] = identity
        if place := files.anchor(self._folder):
            facts["anchor"] = place
        facts["bytes"] = total
        facts.update(
            {f"unknown/{name}": size for name, size in files.unknown_files(self._folder, self._slots).items()}
        )
        facts["fingerprint"] = files.fingerprint(self._folder, self._names)
        unfinished = files.unfinished_writes(self._folder)
        facts["unfinished_writes"] = ", ".join(unfinished) or None
        return facts, details

    async def glance(self, others: Sequence[Store] = ()) -> list[Glance]:
        known = self._counts(str(self._folder))
        first = await asyncio.to_thread(glance_folder, self._folder, self._embedding.dim, known, self._names)
        return [first, *[(await other.glance())[0] for other in others]]

    def _marks(self) -> tuple[dict[str, Value], dict[str, Value]]:
        """Our own marks on these slots, all None when no migration ever wrote here; and what is staged, as details."""
        mark = current(whole(self._folder, self._slots))
        facts: dict[str, Value] = {
            "schema": True,
            "migration": None,
            "state": None,
            "source_fingerprint": None,
        }
        if mark is None:
            return facts, {}
        facts["migration"], facts["source_fingerprint"] = mark.migration, mark.source_fingerprint
        # Until every file is in its place, nothing was switched.
        seen = MarkState.VERIFIED if mark.state is MarkState.PUBLISHING else mark.state
        facts["state"] = seen.value
        if mark.state is MarkState.SWITCHED:
            return facts, {}
        staged: dict[str, Value] = {f"staged/{name}": count for name, count in mark.records.items()}
        return facts, {"checkpoint_records": sum(mark.records.values()), **staged}

    async def addresses(self) -> Addresses:
        return await asyncio.to_thread(whereabouts.addresses, self._folder, self._slots)

    async def identify(self) -> None:
        """A folder has an identity of its own."""

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

    def written(self, migration_id: str) -> JsonReader:
        """What that migration has written, before and after it is switched to. Raises NotFound for an unfinished copy."""
        place = staging_folder(self._folder, migration_id)
        mark = load(place)
        if mark is None or mark.state is MarkState.COPYING:
            raise NotFound(
                f'the folder "{self._folder}" holds no finished copy of migration "{migration_id}"',
                hint="run hybridrag apply: it goes on from the checkpoint",
            )
        others = others_in(mark) if Slot.KV in self._slots else []
        return WrittenReader(self._folder, self._names, place, others)

    def examine(self, batch: Batch, into: Examination) -> Batch:
        return records.examine(batch, into, self._embedding.dim)

    async def nearest(
        self, namespace: str, queries: Vectors, count: int, among: Sequence[Sequence[str]]
    ) -> Nearest:
        path = self._folder / files.file_of(namespace)
        return await asyncio.to_thread(nearest, path, namespace, queries, count)

    async def related(self) -> list[str]:
        return []

    def open_writer(
        self, migration_id: str, fingerprint: str, *, replaces: str | None = None
    ) -> JsonWriterSession:
        """With `replaces`, files of these slots in the folder are this database's own, kept by an earlier migration;
        they are moved aside when the new ones are switched to. Without it they are refused."""
        return JsonWriterSession(
            self._folder,
            self._slots,
            self._embedding,
            migration_id,
            fingerprint,
            replaces=replaces is not None,
        )

    async def recall(self) -> None:
        """LightRAG compares with every vector."""

    def mending(self) -> None:
        """Files are written whole."""

    async def create_place(self) -> None:
        """LightRAG makes it itself."""

    async def mark(self, migration_id: str, state: MarkState, fingerprint: str | None = None) -> None:
        """See `Store.mark`; `switched` publishes what was written, file by file, and may be repeated."""
        try:
            await asyncio.to_thread(publishing.mark, self._folder, migration_id, state, fingerprint)
        except OSError as error:
            raise publishing.explain(error, self._folder) from error

    async def withdraw(self, migration_id: str) -> None:
        try:
            await asyncio.to_thread(publishing.withdraw, self._folder, migration_id)
        except OSError as error:
            raise publishing.explain(error, self._folder) from error

    async def destroy_kept(self, migration_id: str | None) -> None:
        try:
            await asyncio.to_thread(publishing.destroy, self._folder, self._slots, migration_id)
        except OSError as error:
            raise publishing.explain(error, self._folder) from error

    async def make_way(self, migration_id: str | None) -> None:
        """Files are moved aside when the new ones are switched to (`open_writer`, `replaces`)."""

    async def notes(self, others: Sequence[Store] = ()) -> list[Notes]:
        mine = await asyncio.to_thread(notes.read_notes, self._folder)
        return [mine, *[(await other.notes())[0] for other in others]]

    async def put_note(self, name: str, note: Note) -> None:
        try:
            await asyncio.to_thread(notes.put_note, self._folder, name, note)
        except OSError as error:
            raise publishing.explain(error, self._folder) from error

    async def drop_note(self, name: str) -> None:
        try:
            await asyncio.to_thread(notes.drop_note, self._folder, name)
        except OSError as error:
            raise publishing.explain(error, self._folder) from error

    @contextlib.asynccontextmanager
    async def claimed(self, name: str) -> AsyncIterator[None]:
        try:
            with notes.claimed(self._folder, name):
                yield
        except OSError as error:
            raise publishing.explain(error, self._folder) from error

    async def close(self) -> None:
        """Nothing is held open."""
