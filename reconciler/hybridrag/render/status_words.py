"""Sentences about a database that status for people and status for machines share."""

from __future__ import annotations

from collections.abc import Mapping

from hybridrag.engine.kept import Kept
from hybridrag.engine.status import DatabaseStatus, Migration
from hybridrag.model import wanted
from hybridrag.model.data import BY_NAME
from hybridrag.model.events import StreamProgress

from .units import duration, size


def way_out(database: DatabaseStatus) -> str:
    """The command that moves a database out of its files, ready to paste."""
    return wanted.way_out(database.database, database.move_to)


def size_warnings(database: DatabaseStatus) -> list[str]:
    """One sentence for each file above its threshold, and one for the total."""
    return size_sentences(database.sizes, database.thresholds, way_out(database))


def size_sentences(sizes: Mapping[str, int], limits: wanted.Thresholds, command: str) -> list[str]:
    """The same of files by name, with the command that moves them."""
    found = []
    for name in limits.exceeded(sizes):
        if name:
            told = f"{name}: {size(sizes[name])}, above the threshold of {size(limits.file_bytes)}"
        else:
            told = (
                f"all files: {size(sum(sizes.values()))}, above the threshold of {size(limits.total_bytes)}"
            )
        found.append(f"{told}; consider a database server: {command}")
    return found


def size_remark(database: DatabaseStatus) -> str:
    """All of that in one short sentence."""
    files = [name for name in database.oversized if name]
    told = []
    if files:
        which = files[0] if len(files) == 1 else f"{len(files)} files"
        told.append(f"{which} above {size(database.thresholds.file_bytes)}")
    if "" in database.oversized:
        told.append(f"{size(database.size or 0)} in all, above {size(database.thresholds.total_bytes)}")
    return "; ".join(told)


def warnings(database: DatabaseStatus) -> list[str]:
    """Everything that is not as it should be: what is broken first, then what is too big."""
    return [*database.problems, *size_warnings(database)]


_BEGUN = {
    "validate": "checking the source",
    "pause": "holding the source still",
    "migrate": "preparing the target",
    "verify": "comparing",
    "switch": "switching",
    "resume": "releasing the source",
}
"""A step that began, and has not counted anything yet."""


def migration_words(migration: Migration) -> str:
    """How far a move is, or was when it ended; for people."""
    told = _BEGUN.get(migration.phase, migration.phase)
    if migration.total:
        share = 100 * migration.records // migration.total
        told += f" {migration.records:,} of {migration.total:,} records ({share} %)"
    elif migration.records:
        told += f", {migration.records:,} records"
    if migration.state == "running":
        if migration.rate:
            told += f", {migration.rate:,.0f}/s"
        if migration.eta_s is not None:
            told += f", {duration(migration.eta_s)} left"
        parts = "".join(f"; {stream_words(stream)}" for stream in migration.streams)
        return f"migrating: {told}{parts}"
    if migration.state == "failed" and migration.error:
        return f"migration failed: {migration.error}"
    return f"migration {migration.state} ({told})"


def stream_words(stream: StreamProgress) -> str:
    """How far one stream is; for people."""
    told = f"{BY_NAME[stream.namespace].title} {stream.records:,}"
    if stream.total:
        told += f"/{stream.total:,}"
    if stream.rate:
        told += f" {stream.rate:,.0f}/s"
    if stream.eta_s is not None:
        told += f" {duration(stream.eta_s)} left"
    return told


def count(database: DatabaseStatus, namespace: str) -> str:
    """12,345 when counted, ~12,000 when estimated, ? when not known."""
    number = database.records.get(namespace)
    if number is None:
        return "?"
    return f"{'~' if namespace in database.estimated else ''}{number:,}"


def kept_words(kept: Kept) -> str:
    """What is kept of an earlier backend, and for how long."""
    if kept.retiring:
        return f"deleting what is kept in {kept.shown} was begun"
    return f"{kept.shown} is kept until {kept.until:%Y-%m-%d %H:%M}Z"
