"""The ports: what the engine and the actions ask of a backend, and nothing more.

`Backend` is one entry below `backends:`; `Store` is one LightRAG database inside it. Observing methods
never write. Implementations live in `backends/<engine>`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from hybridrag.errors import HybridragError

from .address import Addresses
from .data import ALL_SLOTS, Batch, Range, Slot, Vectors
from .facts import Facts
from .findings import Examination, Glance, Nearest, Recall
from .marks import MarkState
from .notes import Note, Notes
from .room import Room
from .selection import Embedding, Selection


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch, and what the writer made of it; `data` is None where it can only be made while writing.

    `beside`: what is written elsewhere together with it; None where there is nothing.
    """

    batch: Batch
    data: bytes | None
    beside: bytes | None = field(default=None, kw_only=True)


class Patcher(Protocol):
    """Changes single records of a finished copy; each call is committed when it returns. Repeating one changes nothing."""

    async def put(self, batch: Batch) -> None:
        """Insert records, or replace those that are there."""
        ...

    async def remove(self, namespace: str, keys: Sequence[str]) -> None:
        """Take records out; those that are not there are passed over."""
        ...


class Reader(Protocol):
    """One consistent way to read every record of a store."""

    def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        """Records in a stable order, without the first `skip` and those behind the first `stop`. Raises SourceUnreadable."""
        ...

    async def fingerprint(self) -> str:
        """Changes whenever the data of the store's slots may have changed; cheap. Raises NotFound."""
        ...

    async def unfinished(self) -> list[str]:
        """Traces of a write that is going on, or was cut off; cheap."""
        ...


class Source(Reader, Protocol):
    """Reads a store as it is now."""

    def snapshot(self) -> AbstractAsyncContextManager[Moment]:
        """A reader that shows one moment, as far as the store can, whatever is written meanwhile."""
        ...


class Moment(Reader, Protocol):
    """A store as it was at one moment."""

    async def kept(self) -> None:
        """Raises PlanRefused where it was written over meanwhile: what was read since then may be mixed."""
        ...

    async def prepare(self) -> None:
        """Do ahead what `until` needs and nothing can change any more; slow, may be left out."""
        ...

    def until(self, later: Reader) -> AbstractAsyncContextManager[Changes | None]:
        """What differs in `later`, a reader of the same store; None where only a whole pass can tell."""
        ...


@dataclass(frozen=True, slots=True)
class Changes:
    """Records that two moments do not have in common: as they were, and as they are. Unchanged ones may be among them."""

    before: Reader
    after: Reader


class Writer(Protocol):
    """Writes records once and only once into an empty store, and remembers how far it came."""

    async def prepare(self) -> dict[str, int]:
        """Make the store ready for bulk load; returns the records already committed, by namespace."""
        ...

    def encode(self, batch: Batch) -> Encoded:
        """The batch in the store's own form. Pure and slow; called in a thread while another batch is written."""
        ...

    async def write(self, encoded: Encoded) -> None:
        """Commit a batch together with its checkpoint, or nothing of it."""
        ...

    async def finish(self, report: Callable[[str], None]) -> None:
        """Build what bulk load left out (indexes) and flush to disk; idempotent."""
        ...


@runtime_checkable
class ParallelWriter(Writer, Protocol):
    """A writer that others may work beside, each on ranges of its own."""

    async def divide(self, ranges: Sequence[Range]) -> list[Range]:
        """Fix the ranges of streams that have none yet; returns all that are fixed, with how far each came.

        They stay fixed for as long as the copy is unfinished, whoever goes on with it.
        """
        ...

    def beside(self) -> AbstractAsyncContextManager[Writer]:
        """Another writer of the same copy. A predecessor's must have ended before `prepare` returns."""
        ...


KnownCounts = Callable[[str], Mapping[str, tuple[str, int]]]
"""Counts remembered of a folder: namespace -> (identity of its file when it was counted, records)."""


class Store(Protocol):
    """Some slots (often all four) of one LightRAG database in one backend."""

    @property
    def backend(self) -> str: ...

    @property
    def slots(self) -> frozenset[Slot]: ...

    async def observe(self) -> tuple[Facts, Facts]:
        """(facts, details): records by namespace, sizes, marks of ours. Read-only.

        Of a place that is to be made first, `creates` tells what; one that cannot be written to tells `refusal` and
        `way_out`; `drops` is what goes with the last records in it. A detail `counted/<namespace>` is the identity of what was counted, for `KnownCounts`.
        """
        ...

    async def glance(self, others: Sequence[Store] = ()) -> list[Glance]:
        """A cheap look at this store and at `others` of the same backend, in this order; a server is asked once for all.

        Read-only. Raises BackendUnavailable.
        """
        ...

    async def addresses(self) -> Addresses:
        """Which place each slot has, equal where another store leads to the same one. Read-only, cheap.

        A slot without a place yet is absent. `observe` tells the same as `place/<slot>`. Raises BackendUnavailable.
        """
        ...

    async def identify(self) -> None:
        """Give a server that has no name of its own one, before it is written to: then `addresses` is exact. Idempotent."""
        ...

    def selection(self) -> Selection: ...

    def reader(self) -> Source: ...

    def examine(self, batch: Batch, into: Examination) -> Batch:
        """The batch as this store would give it back: what it must hold differently is declared here.

        Records it cannot hold are left out and noted in `into`. Pure: nothing is written.
        """
        ...

    async def recall(self) -> Recall | None:
        """How many of the nearest vectors LightRAG's own search finds; None where no index stands between. Read-only."""
        ...

    async def nearest(
        self, namespace: str, queries: Vectors, count: int, among: Sequence[Sequence[str]]
    ) -> Nearest | None:
        """The `count` vectors nearest to each query, by the engine's own comparison and without its index.

        An engine that has no such search looks among the keys that are given for each query. Queries may be left out
        at the end when they take too long. None where nothing can be compared. Read-only.
        """
        ...

    async def related(self) -> list[str]:
        """Rules between streams that this store breaks, in words; empty when it is sound. Read-only."""
        ...

    def written(self, migration_id: str) -> Reader:
        """What a migration of ours has written here, whether it serves yet or not."""
        ...

    def mending(self) -> Mending | None:
        """How single records of a finished copy are changed; None where only a whole copy can be made."""
        ...

    def open_writer(
        self, migration_id: str, fingerprint: str, *, replaces: str | None = None
    ) -> WriterSession:
        """`replaces` names the migration whose kept, no longer serving copy may give way."""
        ...

    async def create_place(self) -> None:
        """Make what LightRAG needs before it can begin an empty database here; idempotent, nothing for most."""
        ...

    async def mark(self, migration_id: str, state: MarkState, fingerprint: str | None = None) -> None:
        """Record on the store itself how far this migration is: copied, verified, switched. Raises PlanRefused where
        another migration's mark stands, or this one may not become that (`model.marks.ALLOWED`).

        `fingerprint`: of the source's present state, where the copy was brought up to it.
        """
        ...

    async def withdraw(self, migration_id: str) -> None:
        """Take the mark "switched" back: the copy is verified and does not serve, and what stood aside for it is back.

        Idempotent; only for a copy that nobody wrote since. Raises PlanRefused where another migration's mark stands.
        """
        ...

    async def destroy_kept(self, migration_id: str | None) -> None:
        """Delete what these slots hold here, of this database alone, and our marks on it; idempotent.

        For a copy that does not serve any more. `migration_id` is the mark that was seen on it, None for none; raises
        PlanRefused where another one stands there now.
        """
        ...

    async def make_way(self, migration_id: str | None) -> None:
        """Delete what these slots hold here, of this workspace alone and whoever wrote it; idempotent.

        Files are left to the switch, which moves them aside. `migration_id` is the mark of the finished copy that was
        seen, None for none; raises PlanRefused where another one stands there now.
        """
        ...

    async def notes(self, others: Sequence[Store] = ()) -> list[Notes]:
        """What our notes in this place say, and in those of `others` of the same backend; a server is asked once for all.

        A place that does not exist has none. Read-only. Raises BackendUnavailable.
        """
        ...

    async def put_note(self, name: str, note: Note) -> None:
        """Write a note, whole and durable; nothing where the same one stands. Raises LeaseHeld where one stands that is
        not older, BackendUnavailable."""
        ...

    async def drop_note(self, name: str) -> None:
        """Forget a note; idempotent."""
        ...

    def claimed(self, name: str) -> AbstractAsyncContextManager[None]:
        """While it is entered no other run, of whatever state folder, can enter it for this name and place.

        Entering raises LeaseHeld; a place that does not exist yet is entered without a claim. A process that dies gives it back.
        """
        ...

    async def close(self) -> None: ...


class Mending(Protocol):
    """Asks for, and changes, single records of a finished copy."""

    async def reclaim(self, migration_id: str) -> None:
        """Take a kept copy that does not serve back as a finished copy of this migration, of no known state; idempotent.

        Raises PlanRefused where the mark of another database, or an unfinished copy, stands there.
        """
        ...

    def keys(self, namespace: str) -> AsyncIterator[list[str]]:
        """Every key of a stream, without its records; in any order. Read-only."""
        ...

    async def fetch(self, namespace: str, keys: Sequence[str]) -> Batch:
        """Those of the records that are there. Read-only."""
        ...

    def open(self, migration_id: str) -> PatcherSession:
        """For a copy of ours that is finished and does not serve yet."""
        ...

    def restoring(self) -> PatcherSession:
        """For what serves: to put back what was lost. Takes the store's lock, and changes no mark."""
        ...

    async def complete(self, report: Callable[[str], None]) -> None:
        """Make what LightRAG needs beside the records where it is missing: tables, vector indexes. Idempotent.

        `report` is told of each. Only under `restoring`.
        """
        ...


class PatcherSession(Protocol):
    """Async context manager around a Patcher; entering takes the store's own lock, and back the mark "verified"."""

    async def __aenter__(self) -> Patcher: ...

    async def __aexit__(self, *exc: Any) -> None: ...


class WriterSession(Protocol):
    """Async context manager around a Writer; entering takes the store's own lock."""

    async def __aenter__(self) -> Writer: ...

    async def __aexit__(self, *exc: Any) -> None: ...


class Backend(Protocol):
    """One entry below `backends:`."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def provisioned(self) -> bool:
        """True when this tool creates and starts the server."""
        ...

    async def observe(self) -> tuple[Facts, Facts]:
        """(facts, details) of the server. Read-only, never raises for an unreachable one.

        `reachable`, and when not: `problem`, `hint`. A provisioned one also tells its `provision` driver and
        `state`, and where it is not as declared: `change` (update, replace, refused), `differs`, `refusal`,
        `way_out`, `restarts`, `leaves` (see `backends/postgres/driver.py`). `creates`: in words, what is made in it for
        each database.
        """
        ...

    def words(self, facts: Facts) -> tuple[str, ...]:
        """What its server is, for people: product, version and what it carries. `facts` as observed. Pure."""
        ...

    async def room(self) -> Room | None:
        """The volume that holds the server's data. Read-only, cheap, never raises.

        None where that cannot be known: a server on another machine, data that we may not look at.
        """
        ...

    async def provision(self) -> None:
        """Create and start what `provision:` declares; idempotent."""
        ...

    def problems(self, facts: Facts, embedding: Embedding) -> list[HybridragError]:
        """Why the server, as observed, cannot take LightRAG's data; empty when it can. Pure."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def serves(self) -> frozenset[Slot]:
        """The slots that LightRAG can keep in this engine."""
        ...

    @property
    def mends(self) -> bool:
        """Whether its stores have a `mending`."""
        ...

    def store(
        self, path: str, workspace: str, embedding: Embedding, slots: frozenset[Slot] = ALL_SLOTS
    ) -> Store: ...

    def mislaid(self, database: str, known: Mapping[str, Any] | None) -> HybridragError | None:
        """Why a database that the registry places at `known` (its `backend_config`) would not be found there now.

        None where it would be; a mere change of address is none of this. Pure.
        """
        ...

    def registry_config(self, workspace: str) -> dict[str, Any]:
        """`backend_config` of the registry: where live consumers find it, without secrets."""
        ...
