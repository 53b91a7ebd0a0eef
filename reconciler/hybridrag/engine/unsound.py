"""What a verification of a database that serves says when something is wrong: in words, with what helps."""

from __future__ import annotations

from collections.abc import Mapping

from hybridrag.errors import VerificationFailed
from hybridrag.migrate.since import Moved
from hybridrag.migrate.verifying import Report

_SHOWN = 10


def moved_words(since: Mapping[str, Moved]) -> str:
    """What was written as it should be."""
    counts = {
        "written": sum(moved.written for moved in since.values()),
        "changed": sum(moved.changed for moved in since.values()),
        "removed": sum(moved.removed for moved in since.values()),
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items())


def damage_words(since: Mapping[str, Moved]) -> str:
    """What is wrong, counted by kind."""
    counts = {
        "records lost": sum(len(moved.lost) for moved in since.values()),
        "vectors gone": sum(len(moved.blank | moved.torn) for moved in since.values()),
        "vectors changed by something else than LightRAG": sum(len(m.spoiled) for m in since.values()),
        "records extra": sum(len(moved.extra) for moved in since.values()),
    }
    return ", ".join(f"{count:,} {words}" for words, count in counts.items() if count)


def unsound(database: str, report: Report) -> VerificationFailed:
    """The error for a database that serves: what was lost since the switch, beside what was written."""
    lines = [*map(str, report.listed[:_SHOWN]), *report.broken_rules, *report.wrong]
    told = "\n    ".join(lines)
    if report.unknown_since:
        kept = " and ".join(f'"{name}"' for name in dict.fromkeys(report.unknown_since))
        counts = f"{report.missing:,} only in what is kept, {report.extra:,} only in what serves, {report.different:,} different"
        return VerificationFailed(
            f'database "{database}": what serves and what is kept in {kept} differ: {counts}; it was not left as it is now, '
            f"so whether something was lost cannot be told\n    {told}",
            hint=f"hybridrag status {database} shows what is kept; whoever still writes it is to be stopped",
        )
    words = damage_words(report.since) or "rules between records broken"
    mendable = any(moved.mendable for moved in report.since.values())
    hint = (
        f"hybridrag repair {database} puts back what is kept"
        if mendable
        else f"look at these records; hybridrag drift {database} says what else moved"
    )
    return VerificationFailed(
        f'database "{database}": since the switch: {words} (written as usual: {moved_words(report.since)})\n    {told}',
        hint=hint,
    )
