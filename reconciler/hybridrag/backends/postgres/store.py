"""Some slots of one LightRAG database (a workspace) in Postgres: observed, read and written here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from hybridrag.backends.kit.refusals import workspace_in
from hybridrag.model.address import Addresses
from hybridrag.model.data import ALL_SLOTS, Batch, Slot, Vectors, streams_of
from hybridrag.model.facts import Facts
from hybridrag.model.findings import Examination, Glance, Nearest, Recall
from hybridrag.model.marks import MarkState
from hybridrag.model.notes import Note, Notes
from hybridrag.model.ports import Store
from hybridrag.model.selection import Embedding, SchemaMaker, Selection

from . import keeping, notes, own_database
from .building import Budget
from .client import connection
from .endpoint import Endpoint
from .failures import NoSuchDatabase
from .glance import Place, glance_stores
from .graphs import IN_TABLES, STREAMS, Graph
from .indexes import KINDS, column_type
from .ledger import Ledger
from .nearest import nearest
from .observe import observe_store
from .overwriting import make_way
from .own_database import OwnDatabaseSession
from .patching import PostgresMending
from .reading import PostgresReader
from .recall import SAMPLE, measure
from .rows import Shape
from .spec import VectorIndexSpec
from .tables import TABLES, table_name
from .whereabouts import addresses
from .writer import PostgresWriterSession, Task


class PostgresStore:
    """See `model.ports.Store`."""

    def __init__(
        self,
        endpoint: Endpoint,
        workspace: str,
        embedding: Embedding,
        schema: SchemaMaker,
        selection: Callable[[str], Selection],
        slots: frozenset[Slot] = ALL_SLOTS,
        index: VectorIndexSpec | None = None,
        budget: Budget | None = None,
        graph: Graph = IN_TABLES,
    ) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding
        self._schema = schema
        self._selection = selection
        self._slots = slots
        self._index = index or VectorIndexSpec()
        self._budget = budget or Budget()
        self._graph = graph
        half = column_type(self._index) == "halfvec"
        self._shapes = {
            name: graph.shape(name) if name in STREAMS else Shape(name, half=half and TABLES[name].vector)
            for name in streams_of(self._slots)
        }

    @property
    def backend(self) -> str:
        return self._endpoint.name

    @property
    def slots(self) -> frozenset[Slot]:
        return self._slots

    async def observe(self) -> tuple[Facts, Facts]:
        return await observe_store(
            self._endpoint, self._workspace, self._embedding, self._slots, self._index, self._graph
        )

    async def glance(self, others: Sequence[Store] = ()) -> list[Glance]:
        mine = [self, *(other for other in others if isinstance(other, PostgresStore))]
        return await glance_stores(
            [
                Place(
                    each._endpoint,
                    each._workspace,
                    each._embedding,
                    each._slots,
                    each._graph,
                    bool(KINDS[each._index.type].method),
                )
                for each in mine
            ]
        )

    async def addresses(self) -> Addresses:
        try:
            async with connection(self._endpoint, purpose="observe", read_only=True) as opened:
                return await addresses(opened, self._workspace, self._slots, self._graph)
        except NoSuchDatabase:
            if self._endpoint.home is None:
                raise
            return {}  # its own database is made by the first copy

    async def identify(self) -> None:
        """Every server has a name of its own."""

    def selection(self) -> Selection:
        whole = self._selection(self._workspace)
        held = self._slots
        return replace(
            whole,
            kv=whole.kv if Slot.KV in held else None,
            vector=whole.vector if Slot.VECTOR in held else None,
            graph=whole.graph if Slot.GRAPH in held else None,
            doc_status=whole.doc_status if Slot.DOC_STATUS in held else None,
            # Files beside it lie in no workspace; here the variable decides.
            workspace=whole.workspace if held == ALL_SLOTS else "",
        )

    def reader(self) -> PostgresReader:
        return PostgresReader(
            self._endpoint, self._workspace, self._embedding, self._slots, graph=self._graph
        )

    def examine(self, batch: Batch, into: Examination) -> Batch:
        return self._shapes[batch.namespace].examine(batch, into)

    async def related(self) -> list[str]:
        """Columns that no stream carries: a chunk vector repeats tokens and order of its chunk.

        They are empty in vectors that came here before the chunks did, and LightRAG never reads them.
        """
        if not {Slot.KV, Slot.VECTOR} <= self._slots:
            return []
        chunks, vectors = (table_name(name, self._embedding) for name in ("text_chunks", "chunks"))
        async with connection(self._endpoint, purpose="verify", read_only=True, patience_s=10) as opened:
            apart = await opened.fetchval(
                f"SELECT count(*) FROM {vectors} v JOIN {chunks} c USING (workspace, id) WHERE v.workspace = $1 "
                "AND (v.tokens, v.chunk_order_index) IS DISTINCT FROM (c.tokens, c.chunk_order_index) "
                "AND num_nonnulls(v.tokens, v.chunk_order_index) > 0",
                self._workspace,
            )
        return [f"{apart:,} chunk vectors disagree with their chunk in tokens or order"] if apart else []

    async def nearest(
        self, namespace: str, queries: Vectors, count: int, among: Sequence[Sequence[str]]
    ) -> Nearest | None:
        return await nearest(self._endpoint, self._workspace, self._embedding, namespace, queries, count)

    def written(self, migration_id: str) -> PostgresReader:
        return self.reader()

    def mending(self) -> PostgresMending:
        return PostgresMending(
            endpoint=self._endpoint,
            workspace=self._workspace,
            embedding=self._embedding,
            slots=self._slots,
            index=self._index,
            graph=self._graph,
            budget=self._budget,
            create_schema=lambda: self._schema.create(self.selection(), self._embedding),
        )

    async def recall(self, sample: int = SAMPLE) -> Recall | None:
        """How many of the nearest vectors LightRAG's own search finds; None where there is no index to measure."""
        if Slot.VECTOR not in self._slots:
            return None
        settings = self.selection().variables.get("POSTGRES_SERVER_SETTINGS", "")
        return await measure(self._endpoint, self._workspace, self._embedding, self._index, settings, sample)

    def open_writer(
        self, migration_id: str, fingerprint: str, *, replaces: str | None = None
    ) -> PostgresWriterSession | OwnDatabaseSession:
        task = Task(
            endpoint=self._endpoint,
            workspace=self._workspace,
            embedding=self._embedding,
            slots=self._slots,
            index=self._index,
            graph=self._graph,
            budget=self._budget,
            migration_id=migration_id,
            fingerprint=fingerprint,
            replaces=replaces,
        )
        session = PostgresWriterSession(task, self._schema, self.selection())
        if self._endpoint.home is None:
            return session
        return OwnDatabaseSession(self._endpoint, self._workspace, session)

    async def create_place(self) -> None:
        if self._endpoint.home is not None:
            await own_database.create(self._endpoint, self._workspace)

    async def mark(self, migration_id: str, state: MarkState, fingerprint: str | None = None) -> None:
        async with connection(self._endpoint, purpose="mark", read_only=False, patience_s=10) as opened:
            ledger = Ledger(opened, self._workspace, self._slots, self._graph)
            await ledger.create()  # a copy that an earlier version made has an earlier version's marks
            place = workspace_in(self._workspace, self.backend)
            await ledger.advance(place, migration_id, state, fingerprint)

    async def withdraw(self, migration_id: str) -> None:
        async with connection(self._endpoint, purpose="mark", read_only=False, patience_s=10) as opened:
            ledger = Ledger(opened, self._workspace, self._slots, self._graph)
            await ledger.create()
            await ledger.withdraw(workspace_in(self._workspace, self.backend), migration_id)

    async def destroy_kept(self, migration_id: str | None) -> None:
        try:
            await keeping.destroy(
                self._endpoint, self._workspace, self._embedding, self._slots, migration_id, self._graph
            )
        except NoSuchDatabase:
            return
        if self._endpoint.home is not None:
            await own_database.drop(self._endpoint)

    async def make_way(self, migration_id: str | None) -> None:
        await make_way(
            self._endpoint, self._workspace, self._embedding, self._slots, migration_id, graph=self._graph
        )

    async def notes(self, others: Sequence[Store] = ()) -> list[Notes]:
        mine = [self, *(other for other in others if isinstance(other, PostgresStore))]
        return await notes.read_notes([(each._endpoint, each._workspace) for each in mine])

    async def put_note(self, name: str, note: Note) -> None:
        await notes.put_note(self._endpoint, self._workspace, name, note)

    async def drop_note(self, name: str) -> None:
        await notes.drop_note(self._endpoint, self._workspace, name)

    def claimed(self, name: str) -> AbstractAsyncContextManager[None]:
        return notes.claimed(self._endpoint, self._workspace, name)

    async def close(self) -> None:
        """Connections live only as long as the call that needs them."""
