"""The lease: of many that want it at once one holds it, and it is free as soon as its holder is dead."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

from hybridrag.journal import Journal, Lease
from tests.integration.test_kills import is_alive, wait_for


def test_two_first_applies_at_the_same_moment_never_both_run(tmp_path: Path) -> None:
    """Making the journal and taking the lease race without an error other than `lease held`."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from hybridrag.errors import LeaseHeld\n"
        "from hybridrag.journal import Journal, Lease\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    with Journal(Path(sys.argv[1])) as journal, Lease(journal, 'somebody'):\n"
        "        began = time.monotonic()\n"
        "        time.sleep(0.3)\n"
        "        print(f'held {began} {time.monotonic()}')\n"
        "except LeaseHeld:\n"
        "    print('refused')\n"
    )
    for attempt in range(3):
        path = tmp_path / str(attempt) / "journal.db"
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(4)
        ]  # fmt: skip
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        said = [racer.communicate(timeout=20) for racer in racers]
        held = sorted(out.split()[1:] for out, _ in said if out.startswith("held"))
        assert held, said
        assert all(out.startswith("held") or out.strip() == "refused" for out, _ in said), said
        for one, other in itertools.pairwise(held):
            assert float(one[1]) <= float(other[0]), "two of them held it at once"


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    """Even while nobody has asked for the dead process's exit code (a zombie), as in many containers."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from hybridrag.journal import Journal, Lease\n"
        "Lease(Journal(Path(sys.argv[1])), 'killed').__enter__()\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "journal.db"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline() == b"held\n"
    process.kill()
    wait_for(lambda: not is_alive(process.pid))
    try:
        with Journal(path) as journal, Lease(journal, "next") as lease:
            assert lease.fence == 2
    finally:
        process.wait(10)
