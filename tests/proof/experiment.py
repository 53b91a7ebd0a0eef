"""What an experiment is, and what it found."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from .lab import Lab


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One promise and how it is tried. `runs` at full length, `short` in CI; `baseline` is what others measured or admit.

    `not_in_ci` says why an experiment is left out there; `short` is 0 then.
    """

    number: int
    name: str
    promise: str
    tried: str
    baseline: str
    runs: int
    short: int
    run: Callable[[Lab, Trial], None]
    not_in_ci: str = ""


@dataclass(slots=True, kw_only=True)
class Trial:
    """One execution. An experiment counts what it did and what broke; it never stops at the first fault."""

    runs: int
    seed: int
    done: int = 0
    faults: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    rng: random.Random = field(init=False)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def check(self, true: object, fault: str) -> bool:
        """Note a fault, with what is needed to see it again, unless `true`."""
        if not true:
            self.faults.append(fault)
            print(f"broken: {fault}", file=sys.stderr, flush=True)  # an experiment may take hours
        return bool(true)

    def ended(self, done: subprocess.CompletedProcess[str], codes: Collection[int], what: str) -> bool:
        """Note a fault unless a command ended with one of these exit codes, in words and not in a traceback."""
        said = done.stdout + done.stderr
        in_words = "Traceback" not in said and "unexpected error" not in said
        return self.check(
            done.returncode in codes and in_words, f"{what}: ended with {done.returncode}: {said[-1500:]}"
        )

    def count(self, name: str, by: float = 1) -> None:
        self.figures[name] = self.figures.get(name, 0) + by


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of a trial, as it is kept and published."""

    number: int
    runs: int
    faults: int
    listed: tuple[str, ...]
    figures: dict[str, Any]
    seconds: float
    date: str
    seed: int
    command: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
