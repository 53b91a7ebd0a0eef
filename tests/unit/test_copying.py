"""A copy that breaks off tells one error; none is left for the interpreter to print."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

from hybridrag.migrate.copying import copy
from hybridrag.model.data import Batch
from hybridrag.model.ports import Encoded
from tests.support.stores import meter


class BreaksOff:
    """A source that is lost when the write of its first batch has failed, and its target."""

    def __init__(self) -> None:
        self._failed = asyncio.Event()

    async def read(
        self, namespace: str, *, skip: int = 0, stop: int | None = None, rows: int = 1000
    ) -> AsyncIterator[Batch]:
        yield Batch(namespace=namespace, position=1, keys=["doc-1"], fields=[{"content": "text"}])
        await self._failed.wait()
        await asyncio.sleep(0)
        raise ConnectionError("the source is gone")

    def encode(self, batch: Batch) -> Encoded:
        return Encoded(batch, None)

    async def write(self, encoded: Encoded) -> None:
        self._failed.set()
        raise ConnectionError("the target is gone")


async def test_no_error_of_a_broken_copy_is_left_unheard() -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: unheard.append(what))
    assert await _told() == "the source is gone"
    await asyncio.sleep(0.01)
    gc.collect()
    assert unheard == []


async def _told() -> str:
    """The error's words; nothing of it is held any more."""
    both: Any = BreaksOff()
    try:
        await copy(both, both, ["full_docs"], {}, 10, meter())
    except ConnectionError as error:
        return str(error)
    return ""
