"""A database that LightRAG made in Postgres, where no files ever were: every hint on the way to it helps."""

from __future__ import annotations

import re
import shlex
import shutil

from tests.conftest import Project
from tests.support.external import words
from tests.support.target import run_sql

MODEL = "model: hash-emb, "


def test_adopted_with_vectors_in_tables_without_suffix(project: Project) -> None:
    """From a spec that takes it for files to be moved: each refusal names the next command, and following them serves it."""
    assert project.dsn is not None
    spec = project.folder / "hybridrag.yaml"
    wanted = spec.read_text()
    spec.write_text(wanted.replace(MODEL, "model: null, "))
    project.ok("apply", "--auto-approve")
    run_sql(project.dsn, "DROP SCHEMA hybridrag_ledger CASCADE", "SELECT 1")
    for folder in ("state", "notes"):
        shutil.rmtree(project.folder / folder)

    spec.write_text(wanted)
    done = project.run("plan")
    assert done.returncode == 6
    said = words(done.stderr)
    command = re.search(r"then hybridrag (db create [^;]*);", said)
    assert command, said
    spec.write_text(re.sub(r"(?s)databases:.*", "databases: {}\n", wanted))
    created = words(project.ok(*shlex.split(command[1])))
    assert "lightrag_vdb_chunks" in created
    assert "start LightRAG once" in created

    spec.write_text(spec.read_text().replace("dim: 96", 'dim: 96, function: "embedding.py:embed"'))
    status = words(project.run("status").stdout)
    assert " error " in status
    assert "is kept" not in status
    done = project.run("plan")
    assert done.returncode == 4
    assert "start LightRAG once with EMBEDDING_MODEL=hash-emb" in words(done.stderr)
    for argv in (["migrate", "notes", "--to", "files"], ["rollback", "notes", "--yes"]):
        refused = project.run(*argv)
        assert refused.returncode != 0
        assert "json" not in words(refused.stderr)

    project.ok("query", "notes", "who", "--context-only")  # LightRAG starts
    assert "No changes" in project.ok("plan")
    assert "healthy" in project.ok("status")
    assert "527 records equal" in project.ok("migrate", "notes", "--to", "files", "--yes")
