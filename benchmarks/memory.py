"""Peak memory of our process for a small and a large database: it must not grow with the data.

python -m benchmarks.memory [--mb 50 1000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from benchmarks.scratch import Scratch, record, table
from hybridrag.model.selection import Embedding

DIM = 1024


def measure(sizes: list[int]) -> list[dict[str, Any]]:
    """One whole `hybridrag apply` for each size in MB."""
    found = []
    with Scratch() as scratch:
        for megabytes in sizes:
            data = scratch.folder / f"data-{megabytes}"
            maker = [sys.executable, "-m", "tests.support.big_database", str(data)]
            subprocess.run(
                [*maker, "--mb", str(megabytes), "--dim", str(DIM)], check=True, stdout=subprocess.DEVNULL
            )
            seconds, peak = scratch.whole_command(data, Embedding(model="hash-emb", dim=DIM))
            found.append({"mb": megabytes, "seconds": round(seconds, 1), "peak_mb": round(peak)})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, nargs="+", default=[50, 1000])
    rows = measure(parser.parse_args().mb)
    table(
        [
            ("database", "seconds", "peak"),
            *((f"{r['mb']} MB", f"{r['seconds']}", f"{r['peak_mb']} MB") for r in rows),
        ]
    )
    record("memory", {"runs": rows})
