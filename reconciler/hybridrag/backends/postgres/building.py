"""Building a vector index after the load: how much memory and how many processes the server's machine can spare."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from .spec import DockerProvision, EmbeddedProvision, PostgresSpec, size_bytes

LEAST_MB = 64
UNKNOWN_MB = 1024
"""What a machine that we cannot see is trusted to spare."""
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Budget:
    """Most that one index build may take: memory in MB, processes beside the first one."""

    memory_mb: int = UNKNOWN_MB
    workers: int = 2


def budget_of(spec: PostgresSpec) -> Budget:
    """A third of the memory there is, and at most the shared memory that a parallel build keeps its graph in."""
    if not isinstance(spec.provision, (EmbeddedProvision, DockerProvision)):
        return Budget()
    memory, workers = _machine_mb(), max(0, _processors(spec.provision) - 1)
    share = memory // 3
    if isinstance(spec.provision, DockerProvision):
        if spec.provision.memory is not None:
            share = min(share, (size_bytes(spec.provision.memory) >> 20) // 3)
        share = min(share, (size_bytes(spec.provision.shm_size) >> 20) * 9 // 10)
    return Budget(max(LEAST_MB, share), min(workers, 4))


def _machine_mb() -> int:
    """Memory of this machine, or of the container that we and an embedded server run in."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    except (ValueError, OSError, AttributeError):  # Windows has no sysconf
        total = 3 * UNKNOWN_MB
    try:
        return min(total, int((_CGROUP / "memory.max").read_text(encoding="ascii")) >> 20)
    except (OSError, ValueError):  # no such file, or "max"
        return total


def _processors(provision: EmbeddedProvision | DockerProvision) -> int:
    """Processors of this machine, or as many as the container that we and an embedded server run in may use."""
    total = os.cpu_count() or 1
    if isinstance(provision, DockerProvision):
        return total  # a container of ours has no such limit
    with contextlib.suppress(AttributeError):  # macOS and Windows do not say
        total = min(total, len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        total = min(total, max(1, round(int(quota) / int(period))))
    return total


async def build(opened: asyncpg.Connection, statement: str, rows: int, dim: int, budget: Budget) -> None:
    """Run one CREATE INDEX with as much memory as it can use. Vectors plus about 1.5 KB of links and headers each."""
    memory = min(budget.memory_mb, max(LEAST_MB, rows * (dim * 4 + 1536) // (1 << 20) + 16))
    for workers in (budget.workers, 0):
        try:
            # The table looks small to the server, because its vectors are stored out of line.
            await opened.execute(
                f"SET maintenance_work_mem = '{memory}MB'; SET max_parallel_maintenance_workers = {workers}; "
                "SET min_parallel_table_scan_size = 0"
            )
            await opened.execute(if_absent(statement))
            return
        except (asyncpg.DiskFullError, asyncpg.OutOfMemoryError):
            # A container's small /dev/shm stops parallel builds; one process needs none of it.
            if workers == 0:
                raise


def if_absent(statement: str) -> str:
    """The same CREATE INDEX, harmless where the index is there."""
    return statement.replace("CREATE INDEX ", "CREATE INDEX IF NOT EXISTS ", 1)
