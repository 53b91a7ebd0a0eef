"""What was done to an environment, as its journal has it, and the lease in the hands of somebody else."""

from __future__ import annotations

from hybridrag.errors import NotFound
from hybridrag.journal import (
    Holder,
    Journal,
    RunDetail,
    RunRecord,
    StepRecord,
    holder,
    problem,
    run_steps,
    runs,
    take_away,
)

from .running import who
from .world import World


def history(world: World, limit: int | None = None) -> list[RunRecord]:
    """Runs, the newest first. Raises JournalUnreadable."""
    return runs(world.journal_path, limit)


def show_run(world: World, run: str) -> tuple[RunDetail, list[StepRecord]]:
    """One run by the beginning of its id. Raises NotFound, JournalUnreadable."""
    found = run_steps(world.journal_path, run)
    if found is None:
        raise NotFound(
            f'the journal has no run "{run}", or several that begin so', hint="hybridrag history lists them"
        )
    return found


def forgotten(world: World) -> str | None:
    """In words that the journal cannot be read; what is planned and observed does not need it."""
    why = problem(world.journal_path)
    if why is None:
        return None
    return f'history cannot be read from "{world.journal_path}": {why}; nothing else depends on it'


def lease_of(world: World) -> Holder | None:
    """Who holds the environment's lease; None where nobody does. Raises JournalUnreadable."""
    return holder(world.journal_path)


def unlock(world: World, held: Holder) -> None:
    """Take the lease away from that holder. Raises LeaseHeld when it changed hands meanwhile."""
    with Journal(world.journal_path) as journal:
        take_away(journal, held, f"{who()} (hybridrag unlock)")
