"""A stand for each engine: one place to keep a database in, other ways to it, and other places; for the contract suite."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hybridrag.actions.base import Part
from hybridrag.backends.json.backend import JsonBackend
from hybridrag.backends.milvus.client import Connection
from hybridrag.backends.milvus.collections import LEDGER
from hybridrag.migrate.copying import copy
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.verifying import Report, compare
from hybridrag.model.data import ALL_SLOTS, Slot, streams_of
from hybridrag.model.plan import Move
from hybridrag.model.ports import Backend, Reader, Store
from tests.conftest import EXAMPLE
from tests.support.cutting_proxy import Cutting, cutting_proxy
from tests.support.stores import AGE, EMBEDDING, TABLES, meter, postgres

FIRST = "db1-a"
"""Name of a migration: whose, and of which state of the source."""
ENGINES = ("json", "postgres", "age", "milvus")


@dataclass(frozen=True, kw_only=True)
class Stand:
    """An engine under test. `place`: an empty one. `ways`: other entries that lead to it. `elsewhere`: other places."""

    engine: str
    backend: Backend
    place: Callable[[], Store]
    ways: Sequence[Callable[[], Store]]
    elsewhere: Sequence[Callable[[], Store]]
    no_rows: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """While entered, rows of a database cannot be read, as far as the stand can tell that from counting them."""
    tunnels: Sequence[Callable[[], Store]] = ()
    """Ways to the place that only the server itself can tell."""

    @property
    def slots(self) -> frozenset[Slot]:
        return self.backend.serves

    @property
    def source(self) -> Store:
        """The example, in files."""
        return JsonBackend("files").store(str(EXAMPLE / "archive"), "", EMBEDDING, self.slots)

    def part(self, source: Store, target: Store) -> Part:
        """A move between two stores of this engine."""
        move = Move(
            id="notes",
            database="notes",
            slots=tuple(slot for slot in Slot if slot in self.slots),
            source="source",
            target="target",
            workspace="notes",
            fingerprint="fingerprint",
            migration_id=FIRST,
        )
        return Part(move=move, backend=self.backend, source=source, target=target, records={})

    async def copy(
        self,
        store: Store,
        migration: str = FIRST,
        fingerprint: str = "fingerprint",
        *,
        finish: bool = True,
        replaces: str | None = None,
        limit: int | None = None,
    ) -> int:
        """What an apply does, from the last checkpoint on; returns the records written now.

        `limit`: stop after so many records of the first stream, as a kill would.
        """
        reader = self.source.reader()
        async with store.open_writer(migration, fingerprint, replaces=replaces) as writer:
            done = await writer.prepare()
            if limit is not None:
                name = streams_of(self.slots)[0]
                batch = await anext(aiter(reader.read(name, rows=limit)))
                await writer.write(writer.encode(batch))
                return len(batch)
            written = await copy(reader, writer, streams_of(self.slots), done, 50, meter())
            if finish:
                await writer.finish(lambda text: None)
        return written

    async def verified(self, store: Store, migration: str = FIRST) -> Report:
        """What `verify` finds between the example and a copy of it."""
        reader: Reader = self.source.reader()
        tables, examination = await examine_source(reader, store, streams_of(self.slots), 100, meter())
        assert not examination.refused
        return await compare(reader, store, store.written(migration), tables, 100, meter())

    async def state(self, store: Store) -> object:
        return (await store.observe())[0]["state"]


def stand_of(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Stand:
    """Skips where the engine cannot be had."""
    if engine == "json":
        return _json(tmp_path)
    if engine == "milvus":
        return _milvus(request)
    return _postgres(engine, request)


@contextlib.contextmanager
def _no_rows() -> Iterator[None]:
    """Of Milvus: only our own ledger can be queried; counting is no query of this kind."""
    query = Connection.query

    async def only_the_ledger(self: Connection, collection: str, *args: Any) -> Any:
        assert collection == LEDGER, f"rows of {collection} are read"
        return await query(self, collection, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "query", only_the_ledger)
        yield


def _tunnel(request: pytest.FixtureRequest, uri: str) -> int:
    """A port that leads to a server on this machine, until the test ends."""
    stack = contextlib.ExitStack()
    request.addfinalizer(stack.close)
    port = int(uri.rpartition(":")[2])
    return stack.enter_context(cutting_proxy("127.0.0.1", port, Cutting(word=b"\0never\0", before=True))).port


def _json(folder: Path) -> Stand:
    place, link, other = folder / "place", folder / "link", folder / "other"
    for made in (place, other):
        made.mkdir()
    link.symlink_to(place)

    def at(path: Path) -> Callable[[], Store]:
        return lambda: JsonBackend("files").store(str(path), "notes", EMBEDDING)

    return Stand(
        engine="json",
        backend=JsonBackend("files"),
        place=at(place),
        ways=[at(link), at(folder / "other" / ".." / "place")],
        elsewhere=[at(other), at(folder / "not there yet")],
    )


def _postgres(engine: str, request: pytest.FixtureRequest) -> Stand:
    age = engine == "age"
    server = request.getfixturevalue("age_server" if age else "server")
    database = request.getfixturevalue("age_database" if age else "database")
    by_name = dataclasses.replace(server, host="localhost" if server.host == "127.0.0.1" else server.host)
    graph = AGE if age else TABLES
    backend = postgres(server, database, graph)

    def at(one: Backend, workspace: str = "notes") -> Callable[[], Store]:
        return lambda: one.store("unused", workspace, EMBEDDING, ALL_SLOTS)

    admin = "postgres" if age else "tester"
    return Stand(
        engine=engine,
        backend=backend,
        place=at(backend),
        ways=[at(postgres(by_name, database, graph))],
        elsewhere=[at(backend, "other"), at(postgres(server, admin, graph))],
    )


def _milvus(request: pytest.FixtureRequest) -> Stand:
    server = request.getfixturevalue("milvus")
    tunnel = _tunnel(request, server.uri)
    database = request.getfixturevalue("vector_database")
    backend = server.backend(database)
    another = functools.partial(server.backend, database)

    def at(one: Backend, workspace: str = "notes") -> Callable[[], Store]:
        return lambda: one.store("unused", workspace, EMBEDDING, frozenset({Slot.VECTOR}))

    return Stand(
        engine="milvus",
        backend=backend,
        place=at(backend),
        ways=[
            at(another(uri=uri)) for uri in (server.uri.replace("127.0.0.1", "localhost"), server.uri + "/")
        ],
        elsewhere=[at(backend, "other"), at(server.backend("default"))],
        no_rows=_no_rows,
        tunnels=[at(another(uri=f"http://127.0.0.1:{tunnel}"))],
    )
