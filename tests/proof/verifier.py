"""Promise 3: verification sees every difference, and none where there is none."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import asyncpg

from tests.conftest import Project, clean_environment
from tests.support.target import run_sql

from .experiment import Experiment, Trial
from .lab import Lab

COST_MB = (20, 200)
"""Two sizes of database: the memory of verifying must be the same for both."""


def _run(lab: Lab, trial: Trial) -> None:
    with lab.project(lab.database_of(2)) as project:
        project.ok("apply", "--auto-approve")
        dsn = project.dsn or ""
        tables = [
            row[0]
            for row in run_sql(
                dsn,
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name LIKE "
                "'lightrag%' ORDER BY 1",
            )
            if run_sql(dsn, f"SELECT count(*) FROM {row[0]} WHERE workspace = 'notes'")[0][0] > 1
        ]
        trial.check(_differs(project) is False, "a false alarm on an untouched copy")
        while trial.done < trial.runs:
            table = trial.rng.choice(tables)
            kind, statement = _mutation(trial, dsn, table)
            # A copy of the table is its way back; nothing outside it is touched.
            run_sql(dsn, "DROP TABLE IF EXISTS kept", f"CREATE TABLE kept AS TABLE {table}", "SELECT 1")
            try:
                run_sql(dsn, "SET session_replication_role = replica", statement, "SELECT 1")
            except asyncpg.UniqueViolationError:
                trial.count("refused by the table's own keys, and not counted as runs")
                continue
            if trial.check(_differs(project), f"not found: {statement}"):
                trial.count(f"{kind} found")
            columns = ", ".join(_columns(dsn, table))
            run_sql(
                dsn,
                "SET session_replication_role = replica",
                f"DELETE FROM {table}",
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM kept",
                "SELECT 1",
            )
            trial.done += 1
            if trial.done % 20 == 0:
                trial.check(_differs(project) is False, "a false alarm on a restored copy")
                trial.count("looks at an untouched copy")


def _differs(project: Project) -> bool:
    """Whether `verify` says that source and target differ: lost or spoiled (7), or changed since the switch (0, counted).

    Anything else than yes or no is a fault of its own.
    """
    done = project.run("verify", "notes", "--json")
    if done.returncode not in (0, 7):
        raise AssertionError(f"verify ended with {done.returncode}: {done.stderr}")
    if done.returncode == 7:
        return True
    told = json.loads(done.stdout)
    return not told["equal"] or any(any(counts.values()) for counts in told["since"].values())


def _columns(dsn: str, table: str) -> list[str]:
    return [
        row[0]
        for row in run_sql(
            dsn,
            f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' AND is_generated = 'NEVER' "
            "ORDER BY ordinal_position",
        )
    ]


def _mutation(trial: Trial, dsn: str, table: str) -> tuple[str, str]:
    """(kind, statement): one row missing or extra, one value, one component of a vector, two rows swapped."""
    one, other = trial.rng.sample(
        [row[0] for row in run_sql(dsn, f"SELECT ctid::text FROM {table} WHERE workspace = 'notes'")], 2
    )
    types = dict(
        run_sql(
            dsn,
            f"SELECT column_name, CASE WHEN data_type = 'USER-DEFINED' THEN udt_name ELSE data_type END "
            f"FROM information_schema.columns WHERE table_name = '{table}'",
        )
    )
    key = next(name for name in ("id", "entity_id", "src_id", "source_id") if name in types)
    kinds = ["missing", "extra", "value", "value"] + (["component"] * 2 if "content_vector" in types else [])
    kind = trial.rng.choice(kinds)
    if kind == "missing":
        return kind, f"DELETE FROM {table} WHERE ctid = '{one}'"
    if kind == "extra":
        names = [name for name in _columns(dsn, table) if name != key]
        return kind, (
            f"INSERT INTO {table} ({key}, {', '.join(names)}) SELECT {key} || '-extra', {', '.join(names)} "
            f"FROM {table} WHERE ctid = '{one}'"
        )
    if kind == "component":
        place = trial.rng.randrange(64)
        changed = f"array_to_string(f[1:{place}] || (f[{place + 1}] + 1e-3)::real || f[{place + 2}:], ',')"
        return kind, (
            f"UPDATE {table} SET content_vector = (SELECT ('[' || {changed} || ']')::vector FROM "
            f"(SELECT content_vector::real[] AS f) AS v) WHERE ctid = '{one}'"
        )
    texts = [
        name
        for name, of in types.items()
        if of in ("text", "character varying") and name not in ("workspace", key)
    ]
    column = trial.rng.choice([name for name in texts if not name.endswith("workspace")] or [key])
    if trial.rng.random() < 0.3:
        # Two rows swap one value: every count and every sum of lengths stays what it was.
        differ = run_sql(
            dsn, f"SELECT count(DISTINCT {column}) FROM {table} WHERE ctid IN ('{one}', '{other}')"
        )
        if differ[0][0] == 2 and column != key:
            return "swap", (
                f"UPDATE {table} AS a SET {column} = b.{column} FROM {table} AS b WHERE (a.ctid, b.ctid) IN "
                f"(('{one}', '{other}'), ('{other}', '{one}'))"
            )
    return "value", f"UPDATE {table} SET {column} = coalesce({column}, '') || 'x' WHERE ctid = '{one}'"


def _cost(lab: Lab, trial: Trial) -> None:
    """Each size once in a run; the smaller only where somebody asked for one run."""
    sizes = COST_MB if trial.runs > 1 else COST_MB[:1]
    peaks: dict[int, list[float]] = {mb: [] for mb in sizes}
    rates: list[float] = []
    for mb in sizes:
        with lab.project(lab.database_of(mb)) as project:
            project.ok("apply", "--auto-approve")
            for _ in range(max(1, trial.runs // len(sizes))):
                began = time.monotonic()
                code, peak, said = _measured(project, "verify", "notes", "--json")
                seconds = time.monotonic() - began
                if trial.check(code == 0, f"{mb} MB: ended with {code}: {said}"):
                    records = json.loads(said)["records"]
                    rates.append(seconds / records * 1e6)
                    trial.figures[f"records in {mb} MB"] = records
                peaks[mb].append(peak)
                trial.done += 1
        trial.figures[f"peak memory for {mb} MB, MB"] = round(max(peaks[mb]))
    if rates:
        trial.figures["seconds per million records"] = statistics.median(
            rates[-max(1, trial.runs // len(sizes)) :]
        )
    first, last = (max(peaks[mb]) for mb in (sizes[0], sizes[-1]))
    trial.check(last < first * 1.3, f"memory grows with the data: {peaks}")


def _measured(project: Project, *argv: str) -> tuple[int, float, str]:
    """(exit code, peak memory in MB, stdout) of one command alone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridrag", *argv],
        cwd=project.folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_maxrss / 1024, said


EXPERIMENTS: tuple[Any, ...] = (
    Experiment(
        number=3,
        name="verifier",
        promise="verification sees every difference, and raises no false alarm",
        tried="one random change in a random table of the target (a row missing, a row extra, a value, one component of one vector, two "
        "rows swapping a value), then `hybridrag verify`; every twentieth time with nothing changed",
        baseline="an embedded database's verifier that needs 10 GB and 500 MB per million documents, and cannot resume",
        runs=300,
        short=4,
        run=_run,
    ),
    Experiment(
        number=3,
        name="verifier-cost",
        promise="verification costs seconds, and memory that does not grow with the data",
        tried=f"`hybridrag verify` of a database of {COST_MB[0]} and one of {COST_MB[1]} MB after their copy, JSON files against Postgres, "
        "alone on the machine: wall time of the larger, peak memory (RSS) of both",
        baseline="an embedded database's verifier that needs 10 GB and 500 MB per million documents, and cannot resume",
        runs=6,
        short=0,
        run=_cost,
        not_in_ci="seconds and memory are those of a machine that does nothing else; tests/contract/test_verification has its verdicts",
    ),
)
