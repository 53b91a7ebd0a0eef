"""Lost connections and lost processes: how long to wait, and which document to give up for now."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

from hybridrag.model.watching import Document

BACKOFF_S = (1.0, 60.0)
STRIKES = 3
"""So often may LightRAG's process be lost with one document alone in hand."""
FAILING = 3
"""Groups in a row that failed altogether: not the documents are bad then, but what they need is gone."""


class Trouble:
    """`wait` holds until it is over, or `over` is called because something changed."""

    def __init__(self) -> None:
        self._losses = 0
        self._not_before = 0.0
        self._strikes: Counter[tuple[str, str]] = Counter()
        self._failing = 0

    @property
    def waiting(self) -> bool:
        return time.monotonic() < self._not_before

    @property
    def losses(self) -> int:
        """In a row."""
        return self._losses

    def lost(self) -> float:
        """Seconds to wait after one more loss: twice as long each time, less up to a half by chance."""
        least, most = BACKOFF_S
        wait: float = min(most, least * 2 ** min(self._losses, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._losses += 1
        self.wait(wait)
        return wait

    def wait(self, seconds: float) -> None:
        self._not_before = time.monotonic() + seconds

    def over(self) -> None:
        """Try again now."""
        self._not_before = 0.0

    def well(self) -> int:
        """Something was ingested, or nothing is left; the losses that were before that."""
        losses, self._losses, self._not_before, self._failing = self._losses, 0, 0.0, 0
        return losses

    def strike(self, documents: Sequence[Document]) -> Document | None:
        """The process was lost with these in hand; the one that is to be left alone for now."""
        for document in documents:
            self._strikes[document.name, document.digest] += 1
        if len(documents) != 1:
            return None
        (document,) = documents
        if self._strikes[document.name, document.digest] <= STRIKES:
            return None
        del self._strikes[document.name, document.digest]
        return document

    def cleared(self, documents: Sequence[Document]) -> None:
        for document in documents:
            self._strikes.pop((document.name, document.digest), None)

    def all_failed(self) -> bool:
        """Note a group of which nothing was ingested; True when that is so for too long."""
        self._failing += 1
        if self._failing < FAILING:
            return False
        self._failing = 0
        return True
