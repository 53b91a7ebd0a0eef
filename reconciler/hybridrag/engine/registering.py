"""Register and forget a database: what a command does to the registry outside an apply, under the lease."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from hybridrag.errors import BackendUnavailable, PlanRefused
from hybridrag.journal import Journal, Lease
from hybridrag.model.wanted import Wanted

from .running import run_id, who, words_of
from .world import World


@contextlib.contextmanager
def recorded(world: World, step: str) -> Iterator[Journal]:
    """A block under the environment's lease, kept in the journal as a run of one step. Raises LeaseHeld."""
    run = run_id()
    with Journal(world.journal_path) as journal, Lease(journal, f"{who()} {run}") as lease:
        journal.begin_run(run, who(), world.spec_digest, "")
        journal.begin_step(run, step)
        try:
            yield journal
            lease.check()
        except BaseException as error:
            _, message = words_of(error)
            journal.end_step(run, step, "failed", message)
            journal.end_run(run, "failed", message)
            raise
        journal.end_step(run, step, "done", "")
        journal.end_run(run, "done", None)


async def register(world: World, item: Wanted, *, in_files: bool) -> bool:
    """Name a database in the registry; False when an entry of it is kept. Call it under the lease.

    `in_files`: its data is in JSON files, whatever backend is wanted. Otherwise nothing has to be moved, and the
    wanted backend serves it from now on.
    """
    if item.database in world.registry.read().databases:
        return False
    if in_files:
        await world.pointer.register(item.database, item.path)
    else:
        placement = {slot: world.backend(place.name) for slot, place in item.placement.items()}
        await world.pointer.adopt(item, placement, ())  # no files ever served it
    return True


def refuse_while_paused(world: World, journal: Journal, database: str) -> None:
    """Raise PlanRefused where a killed run left the writer stopped: nothing would ever start it again."""
    item = world.wanted.get(database)
    if item is not None and item.pausable and journal.paused_since(database) is not None:
        raise PlanRefused(
            f'database "{database}" cannot be forgotten yet: a run that was cut off left its writer stopped',
            hint=f"hybridrag apply --target {database} goes on and starts it again; then remove it",
        )


async def forget(world: World, journal: Journal, database: str) -> None:
    """Drop a database from registry and places, and the note of a pause without a writer. Its data stays where it is."""
    await world.pointer.forget(database)
    journal.close_pause(database)


async def confirm(world: World, items: Sequence[Wanted]) -> None:
    """See that every place says what it is to these databases, which all are where the spec wants them.

    A place that cannot be written to is passed over: nothing changes by it. Raises LeaseHeld.
    """
    if not (open_ones := [item for item in items if world.pointer.unconfirmed(item)]):
        return
    with Journal(world.journal_path) as journal, Lease(journal, f"{who()} {run_id()}"):
        for item in open_ones:
            with contextlib.suppress(BackendUnavailable):
                await world.pointer.of_run(run_id()).confirm(item)
