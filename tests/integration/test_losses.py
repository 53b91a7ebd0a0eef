"""What a served database lost is said by `status` and `plan`, with a command that helps; never "healthy", never "No changes"."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Project
from tests.support.target import rows_held, run_sql

ENTITIES, RELATIONS, CHUNKS = (
    f"lightrag_vdb_{name}_hash_emb_96d" for name in ("entity", "relation", "chunks")
)


def status(project: Project) -> tuple[str, str]:
    """(health, all that is said about the only database)."""
    done = project.run("status", "--json", "--exit-code")
    (database,) = json.loads(done.stdout)["databases"]
    assert done.returncode == (0 if database["health"] == "healthy" else 2)
    return database["health"], "; ".join(database["warnings"])


def test_lost_indexes_and_vectors_are_no_health(project: Project) -> None:
    """A dropped index, emptied vectors and deleted vectors: each is counted, by `status` and by `plan`, with a command."""
    dsn = str(project.dsn)
    project.ok("apply", "--auto-approve")
    assert status(project) == ("healthy", "")
    assert "No changes." in project.ok("plan")

    (index,) = run_sql(
        dsn,
        f"SELECT indexname FROM pg_indexes WHERE tablename = '{CHUNKS}' AND indexdef LIKE '%hnsw%'",
    )
    run_sql(dsn, f'DROP INDEX "{index[0]}"', "SELECT 1")
    run_sql(dsn, f"UPDATE {ENTITIES} SET content_vector = NULL WHERE id < 'ent-6'")
    ((blank,),) = run_sql(dsn, f"SELECT count(*) FROM {ENTITIES} WHERE content_vector IS NULL")
    run_sql(dsn, f"DELETE FROM {RELATIONS} WHERE id IN (SELECT id FROM {RELATIONS} ORDER BY id LIMIT 30)")
    health, said = status(project)
    assert health == "degraded"
    assert f'"{CHUNKS}" lacks its vector index' in said
    assert f'"{ENTITIES}" has {blank:,} rows whose vectors are gone' in said
    assert "30 relation vectors are gone, for the graph edges are there" in said
    shown = project.ok("status")
    assert "→ hybridrag drift notes" in shown
    assert "retire" not in shown, "what is kept is needed"
    planned = " ".join(project.ok("plan").split())
    assert "No changes" not in planned
    assert "the vector index of its chunk vectors is missing" in planned
    assert f"{blank:,} of its entity vectors have no vector any more" in planned
    assert "30 relation vectors are gone" in planned


def test_a_server_that_came_back_empty_is_not_where_the_spec_wants_it(project: Project) -> None:
    """`plan` and `apply` exit 4 instead of "No changes"; the way back that they name works, and then everything does."""
    dsn = str(project.dsn)
    project.ok("apply", "--auto-approve")
    records = rows_held(dsn)
    for (table,) in run_sql(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        run_sql(dsn, f"TRUNCATE {table} CASCADE", "SELECT 1")
    run_sql(dsn, "DROP SCHEMA hybridrag_ledger CASCADE", "SELECT 1")
    for command in (["plan", "--detailed-exitcode"], ["apply", "--auto-approve"]):
        refused = project.run(*command)
        assert refused.returncode == 4
        assert f"holds no record of it any more ({records:,} records were switched to)" in refused.stderr
        assert "hybridrag rollback notes --discard-new" in refused.stderr
    health, said = status(project)
    assert health != "healthy"
    assert f"all {records:,} records" in said
    project.ok("rollback", "notes", "--discard-new", "--yes")
    assert status(project)[0] == "healthy"
    project.ok("migrate", "notes", "--to", "pg", "--yes")
    assert rows_held(dsn) == records
    assert status(project) == ("healthy", "")


@pytest.mark.parametrize("what", ["password", "port"])
def test_a_server_that_cannot_be_used_is_no_health(project: Project, what: str) -> None:
    """Refusing the password or the connection: exit 2 with --exit-code, and what to do about it."""
    project.ok("apply", "--auto-approve")
    path = project.folder / ("hybridrag.yaml" if what == "port" else ".env")
    text = path.read_text("utf-8")
    if what == "port":
        changed = "\n".join("    port: 1" if "port:" in line else line for line in text.splitlines())
    else:
        changed = "TEST_PG_PASSWORD=another\n"
    path.write_text(changed, "utf-8")
    assert status(project)[0] == "error"
    shown = project.run("status", "--exit-code")
    assert shown.returncode == 2
    assert ("refuses the password" if what == "password" else "connection refused") in shown.stdout
    assert "→ " in shown.stdout
    assert project.run("status").returncode == 0
