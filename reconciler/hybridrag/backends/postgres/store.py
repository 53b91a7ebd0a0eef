"""One LightRAG database (a workspace) in Postgres: observed, read and written here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from hybridrag.model.data import NAMESPACES, Batch
from hybridrag.model.facts import Facts, digest_of
from hybridrag.model.ports import Embedding, Examination, SchemaMaker, Selection

from .client import Endpoint, connection, read_codecs
from .ledger import Ledger
from .observe import observe_store
from .rows import Decoder, Shape
from .tables import table_name
from .writer import PostgresWriterSession


class PostgresReader:
    """Reads a workspace back, one snapshot for each namespace, on read-only sessions."""

    def __init__(self, endpoint: Endpoint, workspace: str, embedding: Embedding) -> None:
        self._endpoint = endpoint
        self._workspace = workspace
        self._embedding = embedding

    def fingerprint(self) -> str:
        return digest_of([self._endpoint.address, self._endpoint.database, self._workspace])

    async def read(self, namespace: str, *, skip: int = 0, rows: int = 1000) -> AsyncIterator[Batch]:
        decoder = Decoder(Shape(namespace))
        table = table_name(namespace, self._embedding)
        query = f"SELECT {', '.join(decoder.select)} FROM {table} WHERE workspace = $1"
        if skip:
            query += f" ORDER BY {decoder.select[0]} OFFSET {int(skip)}"
        position = skip
        async with connection(self._endpoint, purpose="read", read_only=True, patience_s=10) as opened:
            await read_codecs(opened)
            async with opened.transaction(isolation="repeatable_read", readonly=True):
                cursor = await opened.cursor(query, self._workspace)
                while found := await cursor.fetch(rows):
                    position += len(found)
                    yield decoder.decode(found, position)


class PostgresStore:
    """See `model.ports.Store`."""

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
        self._shapes = {namespace.name: Shape(namespace.name) for namespace in NAMESPACES}

    @property
    def backend(self) -> str:
        return self._endpoint.name

    async def observe(self) -> tuple[Facts, Facts]:
        return await observe_store(self._endpoint, self._workspace, self._embedding)

    def selection(self) -> Selection:
        return self._selection(self._workspace)

    def reader(self) -> PostgresReader:
        return PostgresReader(self._endpoint, self._workspace, self._embedding)

    def examine(self, batch: Batch, into: Examination) -> Batch:
        return self._shapes[batch.namespace].examine(batch, into)

    async def related(self) -> list[str]:
        """Columns that no stream carries: a chunk vector repeats tokens and order of its chunk."""
        chunks, vectors = (table_name(name, self._embedding) for name in ("text_chunks", "chunks"))
        async with connection(self._endpoint, purpose="verify", read_only=True, patience_s=10) as opened:
            apart = await opened.fetchval(
                f"SELECT count(*) FROM {vectors} v JOIN {chunks} c USING (workspace, id) WHERE v.workspace = $1 "
                "AND (v.tokens, v.chunk_order_index) IS DISTINCT FROM (c.tokens, c.chunk_order_index)",
                self._workspace,
            )
        return [f"{apart:,} chunk vectors disagree with their chunk in tokens or order"] if apart else []

    def open_writer(self, migration_id: str, fingerprint: str) -> PostgresWriterSession:
        return PostgresWriterSession(
            self._endpoint,
            self._workspace,
            self._embedding,
            migration_id,
            fingerprint,
            self._schema,
            self.selection(),
        )

    async def mark(self, migration_id: str, state: str) -> None:
        async with connection(self._endpoint, purpose="mark", read_only=False, patience_s=10) as opened:
            ledger = Ledger(opened, self._workspace)
            mark = await ledger.mark()
            if mark and mark.migration_id == migration_id:
                await ledger.advance(state)

    async def close(self) -> None:
        """Connections live only as long as the call that needs them."""
