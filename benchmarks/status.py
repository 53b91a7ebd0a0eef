"""How long `hybridrag status` takes: one 10 GB JSON database, and 100 databases at once (50 JSON, 50 Postgres).

    python -m benchmarks.status [--gb 10] [--databases 100]

The 10 GB are the records of a 200 MB database in LightRAG's formats, repeated: the structure is right, only the ids
repeat. Median of five runs, wall time, process start included; "cold" is one run with the files out of the page cache,
where the system allows that. Needs the space below the temporary folder, and frees it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
from tests.support import big_database

from benchmarks.scratch import Scratch, record, table
from hybridrag.backends.json.counting import count_records
from hybridrag.backends.json.matrix import matrix_span
from hybridrag.journal import Registry, RegistryEntry

DIM = 1024
SEED_MB = 200
HEAD = "version: 1\nenvironment: bench\nbackends:\n  files: {type: json}\n"


def repeated(source: Path, target: Path, times: int) -> None:
    """The same file with its records `times` over."""
    whole = source.read_bytes()
    with target.open("wb") as file:
        if source.suffix == ".graphml":
            nodes, edges, end = whole.index(b"<node "), whole.index(b"<edge "), whole.index(b"</graph>")
            file.write(whole[:nodes])
            for part in (whole[nodes:edges], whole[edges:end]):
                for _ in range(times):
                    file.write(part)
            file.write(whole[end:])
        elif source.name.startswith("vdb_"):
            start, end = matrix_span(source)
            matrix = whole[start:end].rstrip(b"=")
            matrix = matrix[
                : len(matrix) // (16 * DIM) * 16 * DIM
            ]  # whole rows in whole groups of three bytes
            rows = whole.index(b"[") + 1
            stop = whole.rindex(b"]", 0, start)
            file.write(whole[:rows])
            for number in range(times):
                file.write((b", " if number else b"") + whole[rows:stop])
            file.write(whole[stop:start])
            for _ in range(times):
                file.write(matrix)
            file.write(whole[end:])
        else:
            start, end = whole.index(b'\n  "'), whole.rindex(b"\n}")
            file.write(whole[:start])
            for number in range(times):
                file.write((b"," if number else b"") + whole[start:end])
            file.write(whole[end:])


def seconds(folder: Path, *argv: str) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "hybridrag", *argv], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def median(folder: Path, *argv: str) -> float:
    return statistics.median(seconds(folder, *argv) for _ in range(5))


def uncached(folder: Path) -> bool:
    """Whether the files could be dropped from the page cache."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def one_big(scratch: Path, gb: float) -> tuple[list[tuple[str, str, str]], dict[str, float]]:
    """(lines to show, figures) of one database of `gb` gigabytes."""
    seed, data, project = scratch / "seed", scratch / "big", scratch / "one"
    big_database.build(seed, mb=SEED_MB, dim=DIM)
    data.mkdir()
    for path in seed.iterdir():
        repeated(path, data / path.name, max(1, round(gb * 1000 / SEED_MB)))
    size = sum(path.stat().st_size for path in data.iterdir()) / 1e9
    project.mkdir()
    spec = f"databases:\n  big: {{path: {data}, backend: files, embedding: {{dim: {DIM}}}}}\n"
    (project / "hybridrag.yaml").write_text(HEAD + spec)
    found = {"gb": round(size, 2)}
    if uncached(data):
        found["cold"] = seconds(project, "backend", "status", "big")
    found["warm"] = median(project, "backend", "status", "big")
    started = time.perf_counter()
    for path in data.iterdir():
        count_records(path)
    found["full_count"] = time.perf_counter() - started
    print(subprocess.run([sys.executable, "-m", "hybridrag", "backend", "status", "big", "--verbose"],
                         cwd=project, check=True, capture_output=True, text=True).stdout)  # fmt: skip
    shutil.rmtree(data)
    shutil.rmtree(seed)
    wanted = {"cold": "", "warm": "1.0", "full_count": ""}
    lines = [(f"{size:.1f} GB of JSON, {name.replace('_', ' ')}", f"{found[name]:.2f}", wanted[name])
             for name in wanted if name in found]  # fmt: skip
    return lines, found


async def fill(dsn: str, databases: int) -> None:
    """Copy the rows of workspace `w0` into all the others."""
    opened = await asyncpg.connect(dsn)
    try:
        tables = await opened.fetch(
            "SELECT table_name AS name FROM information_schema.columns "
            "WHERE table_schema = 'public' AND table_name LIKE 'lightrag%' AND column_name = 'workspace' "
            "ORDER BY table_name DESC"  # nodes before the edges that refer to them
        )
        for entry in tables:
            columns = await opened.fetch(
                "SELECT column_name AS name FROM information_schema.columns WHERE table_name = $1 "
                "AND column_name <> 'workspace' AND is_generated = 'NEVER'",
                entry["name"],
            )
            names = ", ".join(f'"{column["name"]}"' for column in columns)
            await opened.execute(
                f"INSERT INTO {entry['name']} (workspace, {names}) SELECT 'w' || n, {names} "
                f"FROM {entry['name']}, generate_series(1, {databases - 1}) AS n WHERE workspace = 'w0'"
            )
    finally:
        await opened.close()


def many(scratch: Scratch, databases: int) -> tuple[list[tuple[str, str, str]], dict[str, float]]:
    """(lines to show, figures) of half the databases in files and half on one server."""
    half = databases // 2
    seed, project = scratch.folder / "seed", scratch.folder / "many"
    big_database.build(seed, mb=2, dim=64)
    project.mkdir()
    name = asyncio.run(scratch.database("many"))
    server = (
        f"  pg: {{type: postgres, port: {scratch._port}, user: bench, database: {name}, "
        "password: {env: BENCH_PASSWORD}}\n"
    )
    first = f"databases:\n  w0: {{path: {seed}, backend: pg, embedding: {{model: m, dim: 64}}}}\n"
    (project / "hybridrag.yaml").write_text(HEAD + server + first)
    subprocess.run(
        [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--quiet"], cwd=project, check=True
    )
    asyncio.run(fill(scratch.dsn(name), half))
    registry = Registry(project / "state" / "bench" / "registry.yaml")
    known = registry.read().databases["w0"].model_dump()
    spec = first
    for number in range(1, half):
        registry.put(RegistryEntry.model_validate({**known, "name": f"w{number}"}))
        spec += f"  w{number}: {{path: {seed}-w{number}, backend: pg, embedding: {{model: m, dim: 64}}}}\n"
    for number in range(half):
        shutil.copytree(seed, project / f"j{number}")
        spec += f"  j{number}: {{path: ./j{number}, backend: files, embedding: {{model: m, dim: 64}}}}\n"
    (project / "hybridrag.yaml").write_text(HEAD + server + spec)
    found = {
        "databases": 2 * half,
        "status": median(project, "status"),
        "validate": median(project, "validate"),
    }
    return [
        (f"{2 * half} databases, status", f"{found['status']:.2f}", "3.0"),
        (f"{2 * half} databases, the spec alone (validate)", f"{found['validate']:.2f}", ""),
    ], found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=10.0)
    parser.add_argument("--databases", type=int, default=100)
    options = parser.parse_args()
    with Scratch() as scratch:
        big, one = one_big(scratch.folder, options.gb)
        all_of_them, hundred = many(scratch, options.databases)
    table([("what", "seconds", "wanted"), *big, *all_of_them])
    record("status", {"seconds": {"one": one, "many": hundred}})


if __name__ == "__main__":
    main()
