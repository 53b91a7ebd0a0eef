"""`hybridrag migrate DB --to BACKEND`: plan and apply for one database, and the spec that says so."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hybridrag.errors import (
    BackendUnavailable,
    HybridragError,
    Interrupted,
    NotFound,
    PlanRefused,
    SourceRefused,
    SourceUnreadable,
    SpecInvalid,
    VerificationFailed,
)

from .apply import tell_settings
from .common import Settings, command_options, exit_codes, locating, parallelism_option

if TYPE_CHECKING:
    from hybridrag.engine import Planned, RunReport, World
    from hybridrag.model.events import Event
    from hybridrag.model.plan import HazardKind, Move

    from .spec_change import SpecChange

SOURCE = 2
CODES: dict[type[HybridragError], int] = {
    NotFound: 1,  # the database; a folder or a file of it that is missing is the source: 2
    SpecInvalid: 1,  # nothing can be found in a spec that is not understood
    SourceUnreadable: SOURCE,
    SourceRefused: SOURCE,
    BackendUnavailable: 3,
    PlanRefused: 3,  # the target is in use, or cannot take the data
    VerificationFailed: 4,
    Interrupted: 5,
}
"""The contract's exit codes. What it does not know keeps its own: 1 wrong usage, 9 another apply runs."""


@click.command()
@click.argument("database", metavar="DB")
@click.option("--to", required=True, metavar="NAME|TYPE", help="A backend of the spec, or its type.")
@click.option("--from", "source", metavar="NAME|TYPE", help="Only if this backend serves the database now.")
@click.option(
    "--connection-string",
    metavar="TEXT",
    help="Adds a Postgres backend: env:NAME or file:PATH (references), - (stdin), or postgresql://… itself.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Records per write; default: the spec's, 1000.",
)
@parallelism_option
@click.option("--resume", is_flag=True, help="Always so: a copy goes on from its last checkpoint.")
@click.option("--verify/--no-verify", default=True, help="Compare every record before switching; always on.")
@click.option("--force", is_flag=True, help="Overwrite what the target holds; the plan names it.")
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--yes", "--auto-approve", "yes", is_flag=True, help="Do not ask on a terminal.")
@command_options
@exit_codes(CODES)
def migrate(
    settings: Settings,
    database: str,
    to: str,
    source: str | None,
    connection_string: str | None,
    batch_size: int | None,
    parallelism: int | None,
    resume: bool,
    verify: bool,
    force: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Move one database to another backend: change its line in the spec, then apply that.

    Asks on a terminal. Elsewhere the command itself is the approval, because it names the database and the
    target. An interrupted migration is resumed by the same command, or by hybridrag apply.
    "sample_queries_pass" in --json is no sample: every record is read back and compared.

    Exit codes: 0, 1 not found, 2 source error, 3 target error, 4 verification failed, 5 interrupted with a
    checkpoint saved, 9 an apply runs.
    """
    from hybridrag.model.plan import HazardKind
    from hybridrag.spec import SpecFiles

    from .backend_choice import choose, placed_on
    from .given_secrets import given
    from .spec_change import SpecChange

    if not verify:
        raise HybridragError("--no-verify is refused: nothing is switched unverified", hint="leave it out")
    change = SpecChange(lambda: SpecFiles(settings.paths()))
    spec = change.spec
    before = locating(settings.assembled(spec)).world
    _check_source(before, database, source)
    option = "--connection-string"
    secret = given(settings, connection_string, option, url=True) if connection_string is not None else None
    try:
        choice = choose(spec, to, connecting=secret is not None)
    except SpecInvalid as error:
        error.exit_code = CODES[BackendUnavailable]
        raise
    if choice.type is not None:
        change.put_backend(choice.name, {"type": choice.type}, "connection_string", secret, before.state)
    wanted = spec.environment.databases[database]
    known = before.backends.get(choice.name)
    placement = placed_on(choice.name, known, wanted.placement()) if known else choice.name
    if wanted.backend != placement:
        change.put_placement(database, placement)
    world = _batched(settings.assembled(change.tried()).world, database, batch_size)
    try:
        planned = planned_for(world, database)
    except NotFound as error:
        error.exit_code = SOURCE
        raise
    job = Job(database, _type_of(before, database), world.backend(choice.name).type)
    placed = world.database(database).backend
    allowed = [HazardKind.OVERWRITE] if force else []
    if dry_run:
        show(settings, planned, allowed)
        return
    if not settings.json and not settings.quiet:
        show(settings, planned, allowed)
    _refuse_overwriting(planned, allowed)
    refuse_incomplete(planned, database)
    if not yes and not settings.json and sys.stdin.isatty() and (planned.plan.steps or change.files):
        click.confirm(f'\nMove "{database}" to "{placed}"?', default=False, err=True, abort=True)
    try:
        report = carry_out(
            settings, change, planned, job, batch=batch_size, parallelism=parallelism, allowed=allowed
        )
    except HybridragError as error:
        if isinstance(error, NotFound) or (
            isinstance(error, PlanRefused) and _source_moved(world, planned, database)
        ):
            error.exit_code = SOURCE
        if settings.json:
            settings.print_json(job.failed(error, world, planned))
        raise
    if settings.json:
        settings.print_json(job.done(report))
        return
    out = settings.out()
    if report is not None:
        out.print(f'\n[good]Done[/] in {report.seconds:.1f} s. "{database}" is served by "{placed}".')
        tell_settings(settings, world, [database])
    if change.files:
        out.print(f'{", ".join(change.files)} now says "{placed}": commit it.')


def _check_source(world: World, database: str, expected: str | None) -> None:
    from hybridrag.engine.world import served_by

    item = world.database(database)
    serving = world.serving(item)
    names = {backend.name.lower() for backend in serving.values()}
    if expected is not None and {expected.lower()} not in (names, {_type_of(world, database)}):
        error = SourceRefused(
            f'database "{database}" is served by "{served_by(serving)}" ({_type_of(world, database)}), not by "{expected}"',
            hint=f"hybridrag db show {database}",
        )
        raise error


def _type_of(world: World, database: str) -> str:
    types = {backend.type for backend in world.serving(world.database(database)).values()}
    return types.pop() if len(types) == 1 else "mixed"


def _batched(world: World, database: str, size: int | None) -> World:
    if size is None:
        return world
    item = dataclasses.replace(world.wanted[database], batch=size)
    return dataclasses.replace(world, wanted={**world.wanted, database: item})


def planned_for(world: World, database: str) -> Planned:
    """The plan of one database."""
    from hybridrag.engine import plan_world

    return asyncio.run(plan_world(world, [database]))


def _refuse_overwriting(planned: Planned, allowed: Sequence[HazardKind]) -> None:
    """Before the spec is written: a step would refuse it as well, only later."""
    from hybridrag.model.plan import HazardKind

    for hazard in planned.plan.hazards:
        if hazard.kind is HazardKind.OVERWRITE and hazard.kind not in allowed:
            raise PlanRefused(
                hazard.detail, hint="if that is meant, add --force; --dry-run only shows the plan"
            )


def refuse_incomplete(planned: Planned, database: str) -> None:
    """Raises SourceRefused where a whole stream is missing in the source; before the spec is written."""
    from hybridrag.model.plan import HazardKind

    for hazard in planned.plan.hazards:
        if hazard.kind is HazardKind.INCOMPLETE_SOURCE:
            raise SourceRefused(
                f'database "{database}": {hazard.detail}',
                hint=f"if that is meant: name the backend in databases.{database}.backend, then "
                "hybridrag apply --allow incomplete_source",
            )


def show(settings: Settings, planned: Planned, allowed: Sequence[HazardKind] = ()) -> None:
    """The plan, for people or as JSON."""
    from hybridrag.render.plan_text import show_plan

    if not settings.json:
        show_plan(settings.out(), planned.plan, allowed=allowed)
        return
    plan = planned.plan
    steps = [
        {**dataclasses.asdict(step), "hazards": [h.kind.value for h in step.hazards]} for step in plan.steps
    ]
    settings.print_json({"dry_run": True, "steps": steps, "warnings": plan.warnings})


def carry_out(
    settings: Settings,
    change: SpecChange,
    shown: Planned,
    job: Job,
    *,
    batch: int | None = None,
    parallelism: int | None = None,
    allowed: Sequence[HazardKind] = (),
) -> RunReport | None:
    """Write the spec, plan again from it, run; None when there was nothing to run.

    Where it fails before a record was copied, the spec is put back as it was.
    """
    from .apply import run_plan

    change.write()
    try:
        world = _batched(settings.assembled(change.written()).world, job.database, batch)
        planned = planned_for(world, job.database)
        if planned.observation.digest != shown.observation.digest:
            raise PlanRefused(
                "the world changed after the plan was made; nothing was moved", hint="run the command again"
            )
        if not planned.plan.steps:
            return None
        return run_plan(settings, world, planned, list(allowed), also=job.hear, parallelism=parallelism)
    except BaseException as error:
        if not job.copying:
            change.undo()
        elif isinstance(error, HybridragError):
            kept = "the spec names the new backend now, so hybridrag apply goes on with it"
            error.hint = (
                kept if error.hint is None or isinstance(error, Interrupted) else f"{error.hint}; {kept}"
            )
        raise


def _source_moved(world: World, shown: Planned, database: str) -> bool:
    """Whether the data is not the one that was planned for."""

    async def moved() -> bool:
        for move in shown.plan.moves_of(database):
            store = world.store(world.database(database), move.source, frozenset(move.slots))
            if await store.reader().fingerprint() != move.fingerprint:
                return True
        return False

    try:
        return asyncio.run(moved())
    except (HybridragError, OSError):
        return True


class Job:
    """What the contract's JSON tells of a migration, heard from its events."""

    def __init__(self, database: str, source: str, target: str) -> None:
        self.database = database
        self._backends = {"source_backend": source, "target_backend": target}
        self._started = time.monotonic()
        self._run: str | None = None
        self._records = 0
        self._quarantined: dict[str, int] = {}
        self._verified = False
        self.copying = False

    def hear(self, event: Event) -> None:
        from hybridrag.model.events import PlanReady, Progress, Quarantined, StepDone, StepStarted

        if isinstance(event, PlanReady):
            self._run = event.run
        elif isinstance(event, StepStarted) and event.step.startswith(("migrate.", "reclaim.")):
            self.copying = True
        elif isinstance(event, Progress) and event.step.startswith("migrate.") and event.phase == "copying":
            self._records = max(self._records, event.records)
        elif isinstance(event, Quarantined):
            self._quarantined[event.step.partition(".")[2]] = event.records
        elif isinstance(event, StepDone) and event.step.startswith("verify."):
            self._verified = True

    def done(self, report: RunReport | None) -> dict[str, Any]:
        return self._json("completed", True if report is not None else None)

    def failed(self, error: HybridragError, world: World, planned: Planned) -> dict[str, Any]:
        status = "paused" if isinstance(error, Interrupted) else "failed"
        if not isinstance(error, VerificationFailed):
            return self._json(status, self._verified or None)
        told = self._json(status, False)
        told["verification"]["record_counts_match"] = asyncio.run(
            _counts_match(world, self.database, planned.plan.moves_of(self.database))
        )
        return told

    def _json(self, status: str, equal: bool | None) -> dict[str, Any]:
        return {
            "job_id": self._run,
            "database": self.database,
            **self._backends,
            "status": status,
            "duration_seconds": round(time.monotonic() - self._started, 3),
            "records_migrated": self._records,
            # Those in quarantine. Without one, a record that the target refuses stops the migration before any copy.
            "records_failed": sum(self._quarantined.values()),
            # Not a sample: every record is read back and compared. null: it did not come to that.
            "verification": {"record_counts_match": equal, "sample_queries_pass": equal},
            # The checkpoint is on the target, in the transaction of the rows it counts.
            "checkpoint_file": None,
        }


async def _counts_match(world: World, database: str, moves: Sequence[Move]) -> bool | None:
    from hybridrag.model.data import streams_of

    item = world.database(database)
    for move in moves:
        slots = frozenset(move.slots)
        try:
            source, _ = await world.store(item, move.source, slots).observe()
            target, _ = await world.store(item, move.target, slots).observe()
        except HybridragError:
            return None
        names = [f"records/{name}" for name in streams_of(slots)]
        if any((source.get(name) or 0) != (target.get(name) or 0) for name in names):
            return False
    return True
