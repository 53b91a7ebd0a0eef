"""What is still to be ingested: the files of a source beside what the database knows. Pure memory; nothing is kept."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hybridrag.model.watching import Document, Fate, Outcome

from .sources import Stamp, Unusable

SETTLED_S = 1.0
"""A file that was not written for so long is taken to be whole."""
RETRY_S = (60.0, 6 * 3600.0)


@dataclass(slots=True)
class _File:
    stamp: Stamp
    seen: float
    digest: str | None = None
    problem: str | None = None
    tries: int = 0
    again: float = 0.0


class Backlog:
    """Files by name. Times are monotonic, except those of stamps.

    A document is known by its content: under its own name, or under any other while its own name is not taken, so
    that a file that was moved or copied is not ingested again.
    """

    def __init__(self, *, retry_s: float = RETRY_S[0]) -> None:
        self._files: dict[str, _File] = {}
        self._known: dict[str, str] = {}
        self._digests: Counter[str] = Counter()
        self._handed: dict[str, str] = {}
        self._retry_s = retry_s
        self._unexamined: set[str] = set()
        self._pending: tuple[float, list[tuple[str, Stamp]]] | None = None
        self.learned = False

    def learn(self, known: Mapping[str, str]) -> None:
        """What the database itself says it knows: digest by name."""
        self._known = dict(known)
        self._digests = Counter(self._known.values())
        self._handed = {}
        self._pending = None
        self.learned = True

    def __len__(self) -> int:
        """Files that hold a document, known or not."""
        return sum(file.digest is not None for file in self._files.values())

    def update(self, listing: Mapping[str, Stamp]) -> None:
        """The files as they are now; a file whose stamp changed is a new one."""
        now = time.monotonic()
        for gone in self._files.keys() - listing.keys():
            del self._files[gone]
            self._unexamined.discard(gone)
            self._pending = None
        for name, stamp in listing.items():
            file = self._files.get(name)
            if file is None or file.stamp != stamp:
                self._files[name] = _File(stamp, now)
                self._unexamined.add(name)
                self._pending = None

    def unexamined(self, most: int) -> list[tuple[str, Stamp]]:
        """Files that nobody looked into yet and that are not being written."""
        now, wall = time.monotonic(), time.time()
        found: list[tuple[str, Stamp]] = []
        for name in self._unexamined:
            file = self._files[name]
            written = max(file.stamp[1], file.stamp[2]) / 1e9
            if now - file.seen >= SETTLED_S or wall - written >= SETTLED_S:
                found.append((name, file.stamp))
                if len(found) == most:
                    break
        return found

    @property
    def unsettled(self) -> int:
        """How many files wait to be looked into."""
        return len(self._unexamined)

    def look_again(self, name: str) -> None:
        """What was found in a file is no longer so."""
        if (file := self._files.get(name)) is not None:
            file.digest = None
            self._unexamined.add(name)
            self._pending = None

    def examined(self, name: str, stamp: Stamp, found: Document | Unusable | None) -> str | None:
        """Note what stands in a file; the words to say about it, where it cannot be used."""
        file = self._files.get(name)
        if file is None or file.stamp != stamp:
            return None
        self._unexamined.discard(name)
        self._pending = None
        if isinstance(found, Unusable):
            file.problem = found.reason
            return found.reason
        file.digest = found.digest if found else None
        return None

    def pending(self) -> list[tuple[str, Stamp]]:
        """Files that are to be ingested now: the longest unchanged first, one of those that hold the same."""
        now = time.monotonic()
        if self._pending is None or self._pending[0] <= now:
            found: dict[str, tuple[str, Stamp]] = {}
            later = [math.inf]
            for name, file in sorted(self._files.items(), key=lambda item: (item[1].stamp[1], item[0])):
                if file.digest is None or self._is_known(name, file.digest):
                    continue
                if file.again > now:
                    later.append(file.again)
                else:
                    found.setdefault(file.digest, (name, file.stamp))
            self._pending = min(later), list(found.values())
        return self._pending[1]

    def _is_known(self, name: str, digest: str) -> bool:
        if digest in (self._known.get(name), self._handed.get(name)):
            return True
        return name not in self._known and digest in self._digests

    @property
    def problems(self) -> dict[str, str]:
        """Why files were not ingested, by name."""
        return {name: file.problem for name, file in self._files.items() if file.problem}

    def settle(self, document: Document, outcome: Outcome) -> None:
        """Note what became of a document. One that failed is tried again later, each time after a longer time."""
        name = document.name
        self._pending = None
        file = self._files.get(name)
        here = file if file is not None and file.digest == document.digest else None
        if outcome.fate is Fate.FAILED:
            if here is not None:
                here.problem = outcome.reason or "LightRAG does not say why"
                here.again = time.monotonic() + min(self._retry_s * 2**here.tries, RETRY_S[1])
                here.tries += 1
            return
        if here is not None:
            here.problem, here.tries = None, 0
        self._handed[name] = document.digest
        if outcome.fate is Fate.INGESTED:
            old = self._known.pop(name, None)
            if old is not None:
                self._digests[old] -= 1
                self._digests += Counter()  # drops what nobody holds any more
            self._known[name] = document.digest
            self._digests[document.digest] += 1

    def give_up(self, document: Document, reason: str) -> None:
        """A document that ends LightRAG's process each time; it is tried again like one that failed."""
        self.settle(
            document,
            Outcome(
                name=document.name,
                fate=Fate.FAILED,
                characters=len(document.text),
                seconds=0.0,
                reason=reason,
            ),
        )
