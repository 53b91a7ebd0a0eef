"""How long a user waits for the quick commands: median of five runs, wall time, process start included.

python -m benchmarks.start_up
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.scratch import record, table

EXAMPLE = Path(__file__).parents[1] / "examples" / "01-json-to-postgres"
LIMITS = {"--help": 0.3, "plan": 1.5, "status": 1.5, "validate": 1.5}


def measure(argv: str, folder: Path) -> float:
    """Median seconds of `hybridrag ARGV`."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "hybridrag", argv], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "example"
        shutil.copytree(EXAMPLE, folder)
        found = {argv: round(measure(argv, folder), 3) for argv in LIMITS}
    table(
        [
            ("command", "seconds", "wanted"),
            *((f"hybridrag {a}", f"{s:.2f}", f"{LIMITS[a]}") for a, s in found.items()),
        ]
    )
    record("start_up", {"seconds": found})


if __name__ == "__main__":
    main()
