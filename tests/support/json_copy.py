"""Copy one JSON database into another folder, in a process that may be killed at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from hybridrag.backends.json.store import JsonStore
from hybridrag.migrate.copying import copy
from hybridrag.migrate.progress import Meter
from hybridrag.model.data import streams_of
from hybridrag.model.marks import MarkState
from hybridrag.model.selection import Embedding

IDENTITY = "owner-1"


def store_of(folder: Path, dim: int) -> JsonStore:
    return JsonStore("files", folder, Embedding(model="hash-emb", dim=dim))


def meter() -> Meter:
    return Meter(lambda event: None, "migrate.test", "copying", 1)


async def migrate(reader: Any, target: Any, *, rows: int, identity: str = IDENTITY, **options: Any) -> int:
    """Everything up to the state "copied"; returns the records that were committed before."""
    async with target.open_writer(identity, "fingerprint", **options) as writer:
        done = await writer.prepare()
        await copy(reader, writer, streams_of(target.slots), done, rows, meter())
        await writer.finish(lambda phase: None)
        return sum(done.values())


async def publish(target: Any, identity: str = IDENTITY) -> None:
    for state in (MarkState.VERIFIED, MarkState.SWITCHED):
        await target.mark(identity, state)


def whole(source: Path, folder: Path, dim: int, rows: int) -> None:
    """Copy and publish, from wherever an earlier run was killed."""

    async def run() -> None:
        target = store_of(folder, dim)
        facts, _ = await target.observe()
        if facts["state"] != "switched":
            await migrate(store_of(source, dim).reader(), target, rows=rows)
        await publish(target)

    asyncio.run(run())


def publish_until(folder: Path, dim: int, calls: int) -> None:
    """Publish, and be killed before the renaming of that number."""
    left = [calls]
    for name in ("rename", "replace"):
        original = getattr(Path, name)

        def counted(self: Path, other: Any, original: Any = original) -> Any:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return original(self, other)

        setattr(Path, name, counted)
    asyncio.run(store_of(folder, dim).mark(IDENTITY, MarkState.SWITCHED))
