"""The proof suite's results: experiments that run in several processes at once do not lose each other's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.proof.__main__ import experiments
from tests.proof.report import PROMISES, text

KEEP = """
import sys
from pathlib import Path
from tests.proof.__main__ import experiments
from tests.proof.experiment import Found
from tests.proof.report import keep

results, report, *names = sys.argv[1:]
for name in names:
    found = Found(number=1, runs=20, faults=0, listed=(), figures={"kills": 19}, seconds=1.0, date="2026-01-02", seed=3, command=name)
    keep(Path(results), Path(report), experiments(), name, found)
"""


def test_results_of_several_processes_stand_side_by_side(tmp_path: Path) -> None:
    names = [each.name for each in experiments()]
    results, report = tmp_path / "kept" / "proof.json", tmp_path / "reliability.md"
    others = [
        subprocess.Popen([sys.executable, "-c", KEEP, str(results), str(report), *names[part::3]])
        for part in range(3)
    ]
    assert [each.wait(60) for each in others] == [0, 0, 0]
    assert set(json.loads(results.read_text("utf-8"))) == set(names)
    assert all(name in report.read_text("utf-8") for name in names)
    assert [path.name for path in results.parent.iterdir()] == ["proof.json"]


def test_the_report_holds_what_was_run_and_says_what_broke() -> None:
    """One section for each kept result, with its command; nothing of an experiment that has none."""
    known = experiments()
    assert {each.number for each in known} <= set(PROMISES)
    found = {
        "runs": 1500, "faults": 1, "listed": ["after 3 kills\nthe target is another"], "figures": {"records": 1234567, "x": 0.25},
        "seconds": 7000.0, "date": "2026-01-02", "command": "python -m tests.proof --seed 7 kills-to-postgres",
    }  # fmt: skip
    shown = text(known, {"kills-to-postgres": found})
    assert "1,500 runs, **1 broken**" in shown
    assert "records 1,234,567, x 0.25" in shown
    assert "**Broke**: after 3 kills the target is another" in shown
    assert "`python -m tests.proof --seed 7 kills-to-postgres` (on 2026-01-02: 1 h 57 min)" in shown
    assert shown.count("**Result**") == 1
    assert "no-secret" not in shown
