"""Every error a user can meet, and its exit code.

An error says what failed (with the thing in quotes), where, and the next command to run. Rooms raise
these; only `cli` turns them into text and an exit code. Nothing here may hold a secret.
"""

from __future__ import annotations

from collections.abc import Sequence


class HybridragError(Exception):
    """Base of all errors with words for a user. `exit_code` is documented in README and `--help`."""

    exit_code = 1
    code = "error"

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        tail = f"\n  → {self.hint}" if self.hint else ""
        return f"{place}{self.what}{tail}"

    def as_dict(self) -> dict[str, object]:
        """The JSON form used by `--json`: code, message, where, next."""
        return {"code": self.code, "message": self.what, "where": self.where, "next": self.hint}


class SpecInvalid(HybridragError):
    """The spec, a plan file or the registry cannot be understood (exit 3). May hold several problems."""

    exit_code = 3
    code = "spec_invalid"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        problems: Sequence[HybridragError] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if not self.problems:
            return super().__str__()
        tail = f"\n  → {self.hint}" if self.hint else ""
        return (
            "\n".join([self.what, *("  " + str(problem).replace("\n", "\n  ") for problem in self.problems)])
            + tail
        )

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "problems": [problem.as_dict() for problem in self.problems]}


class BackendUnavailable(HybridragError):
    """A backend cannot be reached, or refuses what is asked of it (exit 4)."""

    exit_code = 4
    code = "backend_unavailable"


class SourceUnreadable(BackendUnavailable):
    """The data of the source is damaged: truncated or malformed (exit 4)."""

    code = "source_unreadable"


class PlanRefused(HybridragError):
    """Understood, but not done: stale plan, hazard not allowed, target in use (exit 5)."""

    exit_code = 5
    code = "plan_refused"


class SourceRefused(PlanRefused):
    """The source can be read, but may not be moved as it is declared (exit 5)."""


class AlreadyExists(HybridragError):
    """A thing of that name is there already (exit 1)."""

    code = "already_exists"


class NotFound(HybridragError):
    """A named thing does not exist: a database, a folder, a backend, a run (exit 6)."""

    exit_code = 6
    code = "not_found"


class VerificationFailed(HybridragError):
    """Source and target differ; nothing was switched (exit 7)."""

    exit_code = 7
    code = "verification_failed"


class Interrupted(HybridragError):
    """Stopped by a signal; the next apply goes on from the last checkpoint (exit 8)."""

    exit_code = 8
    code = "interrupted"


class LeaseHeld(HybridragError):
    """Another apply runs on this environment (exit 9)."""

    exit_code = 9
    code = "lease_held"


class NotConverged(HybridragError):
    """A step ran, but observing again did not show its result (exit 1)."""

    code = "not_converged"
