"""Peak memory of the daemon's ingesting process (and of its parent) beside a Postgres of any size: it must not grow.

python -m benchmarks.watch_memory [--entities 1000 10000 100000]

The model is a stand-in; the documents name people of the database's own, so that its nodes are read and merged.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from pathlib import Path
from typing import Any

from tests.support.big_corpus import PEOPLE
from tests.support.big_database import build
from tests.support.ingesting import doc, ingesting, text
from tests.support.model_server import ModelServer
from tests.support.stores import move

from benchmarks.scratch import Scratch, record, table
from hybridrag.backends.json.store import JsonStore
from hybridrag.model.selection import Embedding
from hybridrag.model.watching import Fate

DIM = 32
DOCUMENTS = 5


def peak_mb(pid: int) -> float:
    """Peak resident memory of a running process (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


async def ingest(scratch: Scratch, entities: int, model: ModelServer) -> dict[str, Any]:
    """A database of that many entities by hybridrag's own copy, then some documents by the daemon's process."""
    data, embedding = scratch.folder / f"data-{entities}", Embedding(model="hash-emb", dim=DIM)
    await asyncio.to_thread(build, data, docs=entities // PEOPLE, dim=DIM)
    place = scratch.store(await scratch.database(f"n{entities}"), embedding)
    await move(JsonStore("files", data, embedding).reader(), place, rows=5000)
    async with ingesting(place.selection(), embedding, model, scratch.folder) as ingester:
        pid = ingester.pid or 0
        idle = peak_mb(pid)
        await ingester.known()
        began = time.perf_counter()
        batch = [doc(f"{number}.md", text(number)) for number in range(DOCUMENTS)]
        done = await ingester.ingest(batch)
        done += await ingester.ingest([doc("0.md", text(DOCUMENTS))])
        seconds = time.perf_counter() - began
        assert {item.fate for item in done} == {Fate.INGESTED}
        return {
            "entities": entities,
            "idle_mb": round(idle),
            "peak_mb": round(peak_mb(pid)),
            "seconds": round(seconds, 1),
        }


async def measure(sizes: list[int]) -> list[dict[str, Any]]:
    with Scratch() as scratch, ModelServer(DIM) as model:
        return [await ingest(scratch, entities, model) for entities in sizes]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, nargs="+", default=[1000, 10_000, 100_000])
    rows = asyncio.run(measure(parser.parse_args().entities))
    table(
        [
            ("entities", "child, started", "child, peak", f"{DOCUMENTS} documents and a change"),
            *(
                (f"{r['entities']}", f"{r['idle_mb']} MB", f"{r['peak_mb']} MB", f"{r['seconds']} s")
                for r in rows
            ),
        ]
    )
    record("watch-memory", {"runs": rows})
