"""A pooler that gives a session to its client is moved through, end to end; one that shares sessions is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import EXAMPLE, Project, Server, make_project
from tests.support.external import words
from tests.support.pooler import pgbouncer
from tests.support.target import run_sql


def rows(project: Project, server: Server) -> int:
    assert project.dsn is not None
    dsn = server.dsn(project.dsn.rpartition("/")[2])
    return int(run_sql(dsn, "SELECT count(*) FROM lightrag_doc_chunks")[0][0])


def test_through_a_pooler_in_session_mode_and_back(tmp_path: Path, server: Server, database: str) -> None:
    """It takes no settings at a session's start, neither ours nor LightRAG's, and no limit of the role ends a copy."""
    run_sql(server.dsn(database), f"ALTER DATABASE {database} SET idle_session_timeout = '1s'", "SELECT 1")
    with pgbouncer(server) as pooled:
        project = make_project(tmp_path / "p", pooled, database, EXAMPLE / "archive")
        spec = project.folder / "hybridrag.yaml"
        spec.write_text(
            spec.read_text().replace("    database:", "    options: {work_mem: 8MB}\n    database:")
        )
        assert "Done" in project.ok("apply", "--auto-approve")
        assert rows(project, server) == 42
        assert "healthy" in project.ok("status")
        rendered = project.ok("render", "notes")
        assert f"POSTGRES_PORT={pooled.port}" in rendered.replace('"', "").replace("'", "")
        assert "POSTGRES_SERVER_SETTINGS" not in rendered
        project.ok("query", "notes", "who", "--context-only")
        assert "527 records equal" in project.ok("rollback", "notes", "--yes")


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("transaction", {}),
        ("statement", {}),
        (
            "transaction",
            {
                "ignore_startup_parameters": "default_transaction_read_only,work_mem",
                "server_round_robin": "1",
            },
        ),
    ],
)
def test_a_pooler_that_shares_sessions_is_refused(
    tmp_path: Path, server: Server, database: str, mode: str, settings: dict[str, str]
) -> None:
    """Also one that ignores our settings: what is set would hold for somebody else's statement."""
    with pgbouncer(server, mode=mode, **settings) as pooled:
        done = make_project(tmp_path / "p", pooled, database, EXAMPLE / "archive").run("plan")
    said = words(done.stdout + done.stderr)
    assert done.returncode == 4, said
    assert "transaction mode" in said
    assert "backends.pg.port" in said
