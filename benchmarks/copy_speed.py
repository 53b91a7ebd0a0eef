"""How fast a migration is, against the limit and against the peer, in one run on one server.

    python -m benchmarks.copy_speed DATA [DATA …] --dim 1024 [--repeat 3] [--skip-peer] [--publish NAME]

Everything is repeated in turn, and medians are compared; `--publish` writes benchmarks/results/NAME.json.
limit: COPY BINARY of the same rows, all encoded beforehand, through as many connections as ours, without vector index.
ours:  read the JSON files, encode, COPY with checkpoints; then index; then verify; then the whole command.
index: the same index built with each of pgvector's own settings (memory for the whole graph, so many workers).
peer:  LightRAG's own storage classes with ready-made embeddings (index present from the start, as it does).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from benchmarks.scratch import Scratch, record, table
from hybridrag.adapters.lightrag_process import LightRagSchema
from hybridrag.backends.json.counting import count_records
from hybridrag.backends.json.store import JsonReader, JsonStore
from hybridrag.backends.postgres.copy_binary import Encoder
from hybridrag.backends.postgres.indexes import definition
from hybridrag.backends.postgres.rows import Shape
from hybridrag.backends.postgres.spec import VectorIndexSpec
from hybridrag.backends.postgres.store import PostgresStore
from hybridrag.backends.postgres.tables import table_name
from hybridrag.migrate.copying import copy_ranges, ranges_of
from hybridrag.migrate.examining import examine_source
from hybridrag.migrate.progress import Meter
from hybridrag.migrate.verifying import compare
from hybridrag.model.data import NAMESPACES, Slot
from hybridrag.model.selection import Embedding
from hybridrag.model.wanted import usual_lanes

ROWS = 1000
STREAMS = [namespace.name for namespace in NAMESPACES]
VECTORS = [namespace.name for namespace in NAMESPACES if namespace.slot is Slot.VECTOR]


def meter() -> Meter:
    return Meter(lambda _: None, "bench", "bench", 0)


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a stream as COPY BINARY, at a place of a file."""

    stream: str
    columns: list[str]
    rows: int
    start: int
    size: int


async def encoded(data: Path, into: Path) -> list[Block]:
    """Every row of a database in blocks of 2,000, written to a file."""
    blocks: list[Block] = []
    with into.open("wb") as file:
        for name in STREAMS:
            encoder = Encoder(Shape(name), "notes")
            chunk_order: dict[str, tuple[int | None, int | None]] = {}
            if name == "chunks":
                async for batch in JsonReader(data).read("text_chunks", rows=2 * ROWS):
                    chunk_order.update(
                        (k, (f["tokens"], f["chunk_order_index"]))
                        for k, f in zip(batch.keys, batch.fields, strict=True)
                    )
            async for batch in JsonReader(data).read(name, rows=2 * ROWS):
                order = (lambda key: chunk_order[key]) if name == "chunks" else None  # noqa: B023 - used at once
                block = encoder.encode(batch, order)
                blocks.append(Block(name, encoder.columns, len(batch), file.tell(), len(block)))
                file.write(block)
    return blocks


async def raw_copy(scratch: Scratch, data: Path, embedding: Embedding) -> tuple[float, int, int]:
    """(seconds, rows, bytes) of COPY alone, through as many connections as our copy uses.

    Nothing else runs meanwhile: rows were encoded beforehand. 2,000 rows a transaction, no checkpoint.
    """
    database = await scratch.database("raw")
    store = scratch.store(database, embedding)
    await LightRagSchema().create(store.selection(), embedding)
    connections = [await asyncpg.connect(scratch.dsn(database)) for _ in range(usual_lanes())]
    for opened in connections:
        await opened.execute("SET synchronous_commit = off")
    for row in await connections[0].fetch(
        "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%USING hnsw%'"
    ):
        await connections[0].execute(f'DROP INDEX "{row["indexname"]}"')
    spool = scratch.folder / "encoded"
    blocks = await encoded(data, spool)
    with spool.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:

        async def load(opened: asyncpg.Connection, todo: list[Block]) -> None:
            while todo:
                block = todo.pop(0)

                async def once(block: Block = block) -> AsyncIterator[bytes]:
                    yield held[block.start : block.start + block.size]

                async with opened.transaction():
                    await opened.copy_to_table(
                        table_name(block.stream, embedding),
                        source=once(), columns=block.columns, format="binary",
                    )  # fmt: skip

        seconds = 0.0
        # An edge needs its nodes.
        edges = [block for block in blocks if block.stream == "edges"]
        for todo in ([block for block in blocks if block.stream != "edges"], edges):
            started = time.perf_counter()
            await asyncio.gather(*(load(opened, todo) for opened in connections))
            seconds += time.perf_counter() - started
    spool.unlink()
    for opened in connections:
        await opened.close()
    await scratch.drop(database)
    return seconds, sum(block.rows for block in blocks), sum(block.size for block in blocks)


async def best_index(scratch: Scratch, database: str, embedding: Embedding) -> float:
    """Seconds of dropping nothing and building every vector index once more, with the best number of workers."""
    opened = await asyncpg.connect(scratch.dsn(database))
    seconds: list[float] = []
    try:
        for workers in range(3):
            await opened.execute(
                f"SET maintenance_work_mem = '2GB'; SET max_parallel_maintenance_workers = {workers}; "
                "SET min_parallel_table_scan_size = 0"
            )
            names = []
            started = time.perf_counter()
            for number, name in enumerate(VECTORS):
                statement = definition(table_name(name, embedding), VectorIndexSpec()) or ""
                names.append(f"again_{number}")
                await opened.execute(re.sub(r'INDEX "[^"]*"', f"INDEX {names[-1]}", statement))
            seconds.append(time.perf_counter() - started)
            await opened.execute("DROP INDEX " + ", ".join(names))
    finally:
        await opened.close()
    return min(seconds)


async def ours(scratch: Scratch, data: Path, embedding: Embedding, sweep: bool) -> dict[str, float]:
    """Seconds of each part of a migration."""
    database = await scratch.database("ours")
    target: PostgresStore = scratch.store(database, embedding)
    source = JsonStore("files", data, embedding)
    reader = source.reader()
    parts: dict[str, float] = {}

    def lap(name: str, since: float) -> float:
        parts[name] = time.perf_counter() - since
        return time.perf_counter()

    records = {name: count for path in sorted(data.iterdir()) for name, count in count_records(path).items()}
    lanes = usual_lanes()
    now = time.perf_counter()
    expected, _ = await examine_source(reader, target, STREAMS, ROWS, meter(), lanes=lanes)
    now = lap("examine", now)
    async with target.open_writer("bench", "bench") as writer:
        done = await writer.prepare()
        now = lap("schema", now)
        jobs = await ranges_of(writer, STREAMS, done, records, ROWS, lanes)
        await copy_ranges(reader, writer, jobs, ROWS, meter(), lanes=lanes)
        now = lap("copy", now)
        await writer.finish(lambda _: None)
        now = lap("index", now)
    report = await compare(reader, target, target.reader(), expected, ROWS, meter(), lanes=lanes)
    lap("verify", now)
    if sweep:
        parts["index_best"] = await best_index(scratch, database, embedding)
    assert report.equal
    await scratch.drop(database)
    return parts


async def peer(scratch: Scratch, data: Path, embedding: Embedding) -> dict[str, Any]:
    """LightRAG's own path, in a process of its own."""
    database = await scratch.database("peer")
    selection = scratch.store(database, embedding).selection()
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "variables": {**selection.variables, **{name: get() for name, get in selection.secrets.items()}},
            "data": str(data),
            "dim": embedding.dim,
            "model": embedding.model,
            "workspace": "notes",
            "folder": folder,
        }
        script = Path(__file__).with_name("lightrag_path.py")
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
            [sys.executable, str(script)], input=json.dumps(task), capture_output=True,
            text=True, cwd=folder, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    await scratch.drop(database)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def measure(data: Path, embedding: Embedding, with_peer: bool, repeat: int) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in data.iterdir())
    limits: list[float] = []
    runs: list[dict[str, float]] = []
    rows = encoded = 0
    with Scratch() as scratch:
        for turn in range(repeat):
            limit, rows, encoded = await raw_copy(scratch, data, embedding)
            limits.append(limit)
            runs.append(await ours(scratch, data, embedding, sweep=turn == 0))
        whole = [scratch.whole_command(data, embedding) for _ in range(repeat)]
        parts = {name: median(run[name] for run in runs if name in run) for name in runs[0]}
        seconds, peak = median(one[0] for one in whole), max(one[1] for one in whole)
        result: dict[str, Any] = {
            "data_bytes": size,
            "rows": rows,
            "row_bytes": encoded,
            "repeated": repeat,
            "connections": usual_lanes(),
            "limit_copy_s": round(median(limits), 3),
            "parts_s": {name: round(value, 3) for name, value in parts.items()},
            "whole_s": round(seconds, 2),
            "whole_peak_mb": round(peak, 1),
            "copy_vs_limit": round(
                median(limit / run["copy"] for limit, run in zip(limits, runs, strict=True)), 3
            ),
            "verify_vs_copy": round(median(run["copy"] / run["verify"] for run in runs), 2),
            "index_vs_best": round(runs[0]["index"] / runs[0]["index_best"], 2),
        }
        if with_peer:
            answer = await peer(scratch, data, embedding)
            result["peer_s"] = round(answer["upserts"], 2)
            result["peer_parts_s"] = {name: round(value, 2) for name, value in answer["seconds"].items()}
            result["whole_vs_peer"] = round(answer["upserts"] / seconds, 2)
            work = parts["copy"] + parts["index"] + parts["verify"]
            result["copy_index_verify_vs_peer"] = round(answer["upserts"] / work, 2)
    return result


def show(result: dict[str, Any]) -> None:
    rows, size = result["rows"], result["row_bytes"] / 1e6
    lines = [("what", "seconds", "rows/s", "MB/s", "ratio")]

    def line(what: str, seconds: float, ratio: str = "") -> None:
        lines.append((what, f"{seconds:.2f}", f"{rows / seconds:,.0f}", f"{size / seconds:.0f}", ratio))

    parts = result["parts_s"]
    line("limit: COPY BINARY, rows ready", result["limit_copy_s"], "1")
    line(
        "copy (read, encode, COPY, checkpoint)", parts["copy"], f"{result['copy_vs_limit']:.2f} of the limit"
    )
    line("examine the source", parts["examine"])
    line(
        "index build (and ANALYZE)",
        parts["index"],
        f"{result['index_vs_best']:.2f} of pgvector's best setting",
    )
    line(
        "verify (read back, compare all)",
        parts["verify"],
        f"{result['verify_vs_copy']:.2f} times the copy's speed",
    )
    line("whole command, from nothing", result["whole_s"], f"peak {result['whole_peak_mb']:.0f} MB")
    if "peer_s" in result:
        line("LightRAG's own path", result["peer_s"], f"we are {result['whole_vs_peer']:.1f} times faster")
        lines.append(
            (
                "  copy + index + verify against it",
                "",
                "",
                "",
                f"{result['copy_index_verify_vs_peer']:.1f} times",
            )
        )
    table(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--model", default="hash-emb")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--skip-peer", action="store_true")
    parser.add_argument("--publish", metavar="NAME")
    given = parser.parse_args()
    os.environ.pop("PGPASSWORD", None)
    space = Embedding(model=given.model, dim=given.dim)
    for folder in given.data:
        outcome = asyncio.run(measure(folder.absolute(), space, not given.skip_peer, given.repeat))
        print(f"\n{outcome['data_bytes'] / 1e6:,.0f} MB, {outcome['rows']:,} records, dim {given.dim}")
        show(outcome)
        record("copy_speed", outcome, published=given.publish)
