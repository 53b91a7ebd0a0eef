"""A store that is missing whole is said by `plan` and `status`, and moved only when that is allowed by name."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Project
from tests.support.target import rows_held, run_sql

HALVES: dict[str, tuple[str, str]] = {
    "vdb_entities.json": ("entity vectors", "graph nodes"),
    "kv_store_text_chunks.json": ("chunks", "chunk vectors"),
    "vdb_relationships.json": ("relation vectors", "graph edges"),
    "kv_store_doc_status.json": ("document status", "documents"),
    "graph_chunk_entity_relation.graphml": ("graph nodes", "entity vectors"),
}
"""Files that were not copied, with what is missing then and what shows it."""
QUICK = ("vdb_entities.json", "kv_store_text_chunks.json")


@pytest.mark.parametrize(
    "file", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HALVES]
)
def test_half_a_folder_is_said_and_refused(project: Project, file: str) -> None:
    """`plan` and `status` name the stream and the one that shows it; `apply` exits 5 before it writes anything."""
    (project.data / file).unlink()
    lacks, beside = HALVES[file]
    planned = project.ok("plan")
    assert "incomplete_source" in planned
    assert f"no {lacks} beside" in " ".join(planned.split())
    assert "needs consent: hybridrag apply --allow incomplete_source" in planned
    status = project.ok("status")
    assert "healthy" not in status.replace("unhealthy", "")
    assert f"no {lacks} beside" in " ".join(status.split())
    refused = project.run("apply", "--auto-approve")
    assert refused.returncode == 5
    assert f"no {lacks} beside" in refused.stderr
    assert beside in refused.stderr
    assert "→ if that is meant: hybridrag apply --allow incomplete_source" in refused.stderr
    assert not rows_held(str(project.dsn))


def test_half_a_folder_moves_when_it_is_allowed(project: Project) -> None:
    """The advice of the refusal works; afterwards `status` still says what is missing, and that it is not healthy."""
    (project.data / "vdb_entities.json").unlink()
    project.ok("apply", "--auto-approve", "--allow", "incomplete_source")
    (database,) = json.loads(project.ok("status", "--json"))["databases"]
    assert (database["backend"], database["health"]) == ("pg", "degraded")
    assert any("no entity vectors beside" in warning for warning in database["warnings"])


def test_a_database_without_an_llm_cache_lacks_nothing(project: Project) -> None:
    """A cache is no part of the data: no hazard, no warning, and healthy after the move."""
    (project.data / "kv_store_llm_response_cache.json").unlink()
    assert "incomplete" not in project.ok("plan")
    project.ok("apply", "--auto-approve")
    (database,) = json.loads(project.ok("status", "--json"))["databases"]
    assert (database["health"], database["warnings"]) == ("healthy", [])


def test_a_server_that_lost_a_stream_is_no_complete_source_either(project: Project) -> None:
    """Moving or rolling back from Postgres is refused in the same words, before the spec is changed."""
    project.ok("apply", "--auto-approve")
    run_sql(str(project.dsn), "DELETE FROM lightrag_vdb_entity_hash_emb_96d")
    spec = (project.folder / "hybridrag.yaml").read_bytes()
    assert "no entity vectors beside" in " ".join(project.ok("plan").split())
    for command in (["rollback", "notes", "--yes"], ["migrate", "notes", "--to", "files", "--yes"]):
        refused = project.run(*command)
        assert refused.returncode in (2, 5), refused.stderr
        assert "no entity vectors beside" in refused.stderr
    assert (project.folder / "hybridrag.yaml").read_bytes() == spec
