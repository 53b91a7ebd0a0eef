"""Whether anything was written: to files, and to a Postgres server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.conftest import Server

from .target import run_sql

Snapshot = dict[str, tuple[Any, ...]]


def snapshot(folder: Path) -> Snapshot:
    """Everything below a folder. A folder's time tells of a file that came and went."""
    found: Snapshot = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        info = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (info.st_mode, info.st_mtime_ns, info.st_ino, content)
    return found


def writes(server: Server, database: str) -> tuple[Any, ...]:
    """What was ever written: rows by database and by table, and the next transaction number of the whole server."""
    dsn = server.dsn(database)
    others = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    while run_sql(dsn, others) != [(0,)]:  # a session hands in its counts when it ends
        time.sleep(0.02)
    return (
        run_sql(
            dsn,
            "SELECT pg_stat_force_next_flush()",
            f"SELECT tup_inserted, tup_updated, tup_deleted FROM pg_stat_database WHERE datname = '{database}'",
        ),
        run_sql(
            dsn,
            # Catalogs that all databases share are counted late by the sessions of other tests.
            "SELECT schemaname, relname, n_tup_ins, n_tup_upd, n_tup_del, n_tup_hot_upd FROM pg_stat_all_tables "
            "WHERE relid NOT IN (SELECT oid FROM pg_class WHERE relisshared) ORDER BY 1, 2",
        ),
        run_sql(dsn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"),
    )
