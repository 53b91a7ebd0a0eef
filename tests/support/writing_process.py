"""A real LightRAG that goes on inserting documents into JSON files until it is told to hold still.

    python -m tests.support.writing_process FOLDER CONTROL

In CONTROL: `stop` asks it to hold still, `stopped` is its answer; `inserted` lists the documents that LightRAG says are in.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from lightrag import LightRAG

from . import make_database

DIM = 96


async def write(folder: Path, control: Path) -> None:
    rag = LightRAG(working_dir=str(folder), **make_database.arguments(dim=DIM))
    await rag.initialize_storages()
    number = 90_000
    with (control / "inserted").open("a", encoding="utf-8") as inserted:
        while True:
            if (control / "stop").exists():
                (control / "stopped").touch()
                await asyncio.sleep(0.02)
                continue
            name = f"live-{number}.txt"
            await rag.ainsert(make_database.document(number, random.Random(number), 0), file_paths=[name])
            inserted.write(name + "\n")
            inserted.flush()
            number += 1


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), Path(sys.argv[2])))
