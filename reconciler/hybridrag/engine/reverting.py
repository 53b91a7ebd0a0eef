"""Back to the backend that served before, where the writer does not come up on the one that was just switched to.

Only within the run that switched, only with the writer stopped for certain, and only as long as nobody wrote the new backend
since: then nothing is lost by it. The next apply finds the copy finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from hybridrag.actions import Context
from hybridrag.errors import HybridragError, PlanRefused
from hybridrag.journal import RegistryEntry
from hybridrag.model.events import Emit, Warned
from hybridrag.model.plan import Step
from hybridrag.model.services import Withdrawing

from .pointer import RegistryPointer
from .world import World, served_by

SWITCHING = ("switch", "point_back")


@dataclass(slots=True)
class _Switched:
    """What is needed to go back. `states` are the fingerprints of the targets by move, as the writer found them."""

    entry: RegistryEntry | None
    done: bool = False
    states: Mapping[str, str] | None = None


@dataclass(slots=True)
class Reverting:
    """Hears of each step before and after; `failed` decides what is done about a writer that does not come up."""

    world: World
    emit: Emit
    pointer: RegistryPointer
    _databases: dict[str, _Switched] = field(default_factory=dict)

    async def before(self, context: Context) -> None:
        step, database = context.step, context.database
        if not isinstance(context.halter, Withdrawing):
            return
        if step.verb in SWITCHING:
            self._databases[database] = _Switched(self.pointer.entry(database))
        elif step.verb == "resume" and self._switched(database):
            with contextlib.suppress(HybridragError):  # without it there is no way back, but the way forth
                self._databases[database].states = await _states(context)

    def after(self, step: Step, outcome: str) -> None:
        if step.verb in SWITCHING and outcome == "done" and step.target in self._databases:
            self._databases[step.target].done = True
        elif step.verb == "resume":
            self._databases.pop(step.target, None)

    def _switched(self, database: str) -> bool:
        return database in self._databases and self._databases[database].done

    async def failed(self, error: BaseException, context: Context) -> BaseException:
        """What the run fails with: the error itself, or one that also says what serves now."""
        database = context.database
        if (
            not isinstance(error, HybridragError)
            or context.step.verb != "resume"
            or not isinstance(context.halter, Withdrawing)
            or not self._switched(database)
        ):
            return error
        new = served_by(self.world.serving(self.world.database(database)))
        why = f'the writer of "{database}" does not come up on backend "{new}": {error.what}'
        try:
            await self._go_back(context, context.halter, self._databases.pop(database), new)
        except HybridragError as other:
            return _like(
                error,
                f'{why}; the way back is closed ({other.what}), so "{new}" still serves, and its writer stands',
                f"correct what it says, then: hybridrag apply; or back to what served before: hybridrag rollback {database}",
            )
        old = served_by(self.world.serving(self.world.database(database)))
        self.emit(
            Warned(step=context.step.id, message=f'put back: "{database}" is served by backend "{old}" again')
        )
        return _like(
            error,
            f'{why}; "{database}" is served by backend "{old}" again, as before; the copy in "{new}" is kept',
            f"{error.hint or 'correct what it says'}; then hybridrag apply carries over only what is new",
        )

    async def _go_back(self, context: Context, halter: Withdrawing, known: _Switched, new: str) -> None:
        """Raises HybridragError, with nothing put back."""
        await halter.withdraw()
        if known.states is None or await _states(context) != known.states:
            raise PlanRefused(f'"{new}" was written since the switch, and that must not be lost')
        # The pointer first: from here on the next run finds a finished copy, wherever this one is cut off.
        await self.pointer.put_back(context.database, known.entry)
        for part in context.parts:
            if part.move.migration_id:
                await part.target.withdraw(part.move.migration_id)


async def _states(context: Context) -> dict[str, str]:
    return {part.move.id: await part.target.reader().fingerprint() for part in context.parts}


def _like(error: HybridragError, what: str, hint: str) -> HybridragError:
    made = type(error)(what, hint=hint, where=error.where)
    made.__cause__ = error
    return made
