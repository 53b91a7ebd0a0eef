"""The vectors of one LightRAG database in Milvus: observed, read, examined, written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from hybridrag.backends.kit.marks import check_removable
from hybridrag.model.address import Addresses
from hybridrag.model.data import Batch, Slot, Vectors
from hybridrag.model.facts import Facts
from hybridrag.model.findings import Examination, Glance, Nearest
from hybridrag.model.marks import MarkState
from hybridrag.model.notes import Note, Notes
from hybridrag.model.ports import Store
from hybridrag.model.selection import Embedding, SchemaMaker, Selection

from . import notes
from .client import Endpoint, connection
from .collections import VECTORS, collection_names
from .glance import glance_stores
from .ledger import Ledger
from .nearest import nearest
from .observe import observe_store
from .overwriting import make_way
from .patching import MilvusMending
from .reader import MilvusReader
from .rows import Shape
from .whereabouts import addresses, identify
from .writer import MilvusWriterSession, drop, locked

SLOTS = frozenset({Slot.VECTOR})


class MilvusStore:
    """See `model.ports.Store`."""

    slots = SLOTS

    def __init__(
        self,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        schema: SchemaMaker,
        selection: Callable[[str], Selection],
    ) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding
        self._schema = schema
        self._selection = selection
        self._shapes = {namespace: Shape(namespace) for namespace in VECTORS}

    @property
    def backend(self) -> str:
        return self._endpoint.name

    async def observe(self) -> tuple[Facts, Facts]:
        return await observe_store(self._endpoint, self._workspace, self._embedding)

    async def addresses(self) -> Addresses:
        return await addresses(self._endpoint, self._workspace)

    async def identify(self) -> None:
        await identify(self._endpoint)

    def selection(self) -> Selection:
        return self._selection(self._workspace)

    def reader(self) -> MilvusReader:
        return MilvusReader(self._endpoint, self._workspace, self._embedding)

    def examine(self, batch: Batch, into: Examination) -> Batch:
        return self._shapes[batch.namespace].examine(batch, into)

    async def related(self) -> list[str]:
        """Every field of a collection is a field of its stream: there is nothing beside them."""
        return []

    async def glance(self, others: Sequence[Store] = ()) -> list[Glance]:
        mine = [self, *(other for other in others if isinstance(other, MilvusStore))]
        return await glance_stores(self._endpoint, [(each._workspace, each._embedding) for each in mine])

    async def nearest(
        self, namespace: str, queries: Vectors, count: int, among: Sequence[Sequence[str]]
    ) -> Nearest | None:
        if self.selection().variables.get("MILVUS_METRIC_TYPE") != "COSINE":
            return None
        return await nearest(
            self._endpoint, self._workspace, self._embedding, namespace, queries, count, among
        )

    def written(self, migration_id: str) -> MilvusReader:
        return self.reader()

    async def recall(self) -> None:
        """A workspace has collections of its own; how well their index finds is the server's to tell."""

    def mending(self) -> MilvusMending:
        return MilvusMending(
            endpoint=self._endpoint,
            workspace=self._workspace,
            embedding=self._embedding,
            create_schema=lambda: self._schema.create(self.selection(), self._embedding),
        )

    def open_writer(
        self, migration_id: str, fingerprint: str, *, replaces: str | None = None
    ) -> MilvusWriterSession:
        return MilvusWriterSession(
            self._endpoint,
            self._workspace,
            self._embedding,
            migration_id,
            fingerprint,
            self._schema,
            self.selection(),
            replaces,
        )

    async def create_place(self) -> None:
        """LightRAG makes it itself."""

    async def mark(self, migration_id: str, state: MarkState, fingerprint: str | None = None) -> None:
        async with connection(self._endpoint, patience_s=10) as opened:
            await Ledger(opened, self._workspace).advance(migration_id, state, fingerprint)

    async def withdraw(self, migration_id: str) -> None:
        async with connection(self._endpoint, patience_s=10) as opened:
            await Ledger(opened, self._workspace).withdraw(migration_id)

    async def destroy_kept(self, migration_id: str | None) -> None:
        async with locked(self._endpoint, self._workspace) as (opened, lock):
            ledger = Ledger(opened, self._workspace)
            check_removable(await ledger.mark(), migration_id, ledger.place, "deleted")
            await drop(opened, lock, collection_names(self._workspace, self._embedding).values())
            await ledger.forget()  # last, so that a kill in between leaves it ours

    async def make_way(self, migration_id: str | None) -> None:
        await make_way(self._endpoint, self._workspace, self._embedding, migration_id)

    async def notes(self, others: Sequence[Store] = ()) -> list[Notes]:
        mine = [self, *(other for other in others if isinstance(other, MilvusStore))]
        return await notes.read_notes(self._endpoint, [each._workspace for each in mine])

    async def put_note(self, name: str, note: Note) -> None:
        await notes.put_note(self._endpoint, self._workspace, name, note)

    async def drop_note(self, name: str) -> None:
        await notes.drop_note(self._endpoint, self._workspace, name)

    def claimed(self, name: str) -> AbstractAsyncContextManager[None]:
        return notes.claimed(self._endpoint, self._workspace, name)

    async def close(self) -> None:
        """Connections live only as long as the call that needs them."""
