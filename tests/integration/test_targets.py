"""A Postgres that could not keep, or not serve, what it is given is refused by `plan`, with the statement that mends it."""

from __future__ import annotations

import re

from tests.conftest import Project
from tests.support.external import words
from tests.support.target import run_sql


def refusal(project: Project) -> str:
    """What `plan` says while it refuses the target."""
    done = project.run("plan")
    assert done.returncode == 4, done.stdout + done.stderr
    return words(done.stdout + done.stderr)


def mend(project: Project, said: str, start: str) -> None:
    """Type the statement that the refusal names."""
    assert project.dsn is not None
    found = re.search(rf"({start}.*?); then run hybridrag plan", said)
    assert found, said
    run_sql(project.dsn, found[1], "SELECT 1")


def test_pgvector_in_another_schema(project: Project) -> None:
    """Supabase keeps it in `extensions`, visible to every session; LightRAG's driver finds it in public only."""
    assert project.dsn is not None
    run_sql(
        project.dsn, 'CREATE SCHEMA "Ext s"', 'CREATE EXTENSION vector SCHEMA "Ext s"',
        f"ALTER DATABASE {project.dsn.rpartition('/')[2]} SET search_path = \"$user\", public, \"Ext s\"", "SELECT 1",
    )  # fmt: skip
    said = refusal(project)
    assert 'the schema "Ext s"' in said
    mend(project, said, "ALTER EXTENSION vector SET SCHEMA public")
    project.ok("plan")


def test_pgvector_would_be_created_where_lightrag_does_not_look(project: Project) -> None:
    """A schema named like the user comes first in the search path, so CREATE EXTENSION would put it there."""
    assert project.dsn is not None
    run_sql(project.dsn, "CREATE SCHEMA tester", "SELECT 1")
    mend(project, refusal(project), "CREATE EXTENSION vector SCHEMA public")
    project.ok("plan")
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(
        spec.read_text().replace("    database:", "    options: {search_path: tester}\n    database:")
    )
    assert "search_path" in refusal(project)
