"""What `hybridrag verify` found: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from hybridrag.engine.unsound import moved_words
from hybridrag.migrate.since import Moved
from hybridrag.migrate.verifying import Report
from hybridrag.model.data import printable
from hybridrag.model.findings import Examination


def verify_json(database: str, report: Report, examination: Examination) -> dict[str, Any]:
    """Everything that was looked at."""
    parity = report.parity
    return {
        "database": database,
        "equal": report.equal,
        "records": report.records,
        "missing": report.missing,
        "extra": report.extra,
        "different": report.different,
        "truncated": report.truncated,
        "since": since_json(report.since),
        "streams": {name: asdict(found) for name, found in report.streams.items()},
        "refused": examination.refused_total,
        "differences": [asdict(difference) for difference in report.listed],
        "broken_rules": report.broken_rules,
        "recall": None if report.recall is None else round(report.recall.share, 4),
        "parity": None
        if parity is None
        else {
            "queries": parity.queries,
            "agreed": parity.agreed,
            "nearest": parity.nearest,
            "worst_deviation": parity.worst,
            "tolerance": parity.tolerance,
            "listed": parity.listed,
        },
        "references": {
            "rules": report.rules,
            "broken": [
                {
                    "rule": broken.rule.name,
                    "words": broken.rule.words,
                    "names": broken.names,
                    "as_in_source": broken.as_in_source,
                    "in_quarantine": broken.in_quarantine,
                    "listed": [
                        {"record": printable(record), "misses": printable(name)}
                        for record, name in broken.listed
                    ],
                }
                for broken in report.references
            ],
        },
    }


def since_json(since: Mapping[str, Moved]) -> dict[str, dict[str, int]]:
    """By stream, what became of its records since it began to serve."""
    return {
        name: {
            "written": moved.written,
            "changed": moved.changed,
            "removed": moved.removed,
            "lost": len(moved.lost),
            "vectors_gone": len(moved.blank | moved.torn),
            "vectors_changed": len(moved.spoiled),
            "extra": len(moved.extra),
        }
        for name, moved in since.items()
    }


def show_verified(out: Console, report: Report, examination: Examination) -> None:
    """For a report that is `equal`: each proof in a line, and what is to be known beside it."""
    if report.moved_on:
        out.print(
            f"[good]sound[/]: {report.records:,} records, 0 lost, 0 extra; since the switch: {moved_words(report.since)}"
        )
    else:
        out.print(f"[good]equal[/]: {report.records:,} records, 0 missing, 0 extra, 0 different")
    out.print(f"[good]references[/]: {report.rules} rules, none broken that the source keeps")
    for broken in report.references:
        out.print(f"[warn]![/] {escape(str(broken))}")
    if report.parity is not None:
        out.print(f"[good]neighbours[/]: {report.parity}")
    if report.recall is not None:
        out.print(f"[{'warn' if report.recall.remedy else 'good'}]index[/]: {report.recall}")
    if examination.refused_total:
        name, key, reason = examination.refused[0]
        out.print(
            f"[warn]![/] {examination.refused_total:,} records of the source cannot be held there and were put into quarantine; "
            f'the first: {escape(name)} "{escape(key)}": {escape(reason)}'
        )
