"""The end of the way back: what is kept is deleted when its time is over, that and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridrag.model.data import Slot
from tests.conftest import Project, digests
from tests.e2e.test_directions import published, registry
from tests.e2e.test_rollback import rows
from tests.support.places import located
from tests.support.target import run_sql, tables


def stranger(project: Project) -> dict[str, list[Any]]:
    """Give another workspace a row beside each of ours, and return all that it has."""
    assert project.dsn
    # Nodes before the edges that hang on them.
    for table, columns in sorted(tables(project.dsn).items(), reverse=True):
        names = ", ".join(columns)
        taken = ", ".join("'stranger'" if name == "workspace" else name for name in columns)
        run_sql(
            project.dsn,
            f"INSERT INTO {table} ({names}) SELECT {taken} FROM {table} WHERE workspace = 'notes' ON CONFLICT DO NOTHING",
            "SELECT 1",
        )
    return neighbours(project)


def neighbours(project: Project) -> dict[str, list[Any]]:
    assert project.dsn
    return {
        table: run_sql(
            project.dsn, f"SELECT md5(t::text) FROM {table} t WHERE workspace <> 'notes' ORDER BY 1"
        )
        for table in tables(project.dsn)
    }


@pytest.mark.slow
def test_retire_deletes_the_rows_that_are_kept_and_no_others(project: Project) -> None:
    """Neighbours keep every row, the files that serve stay; refusals write nothing; the second time is no error."""
    project.ok("migrate", "notes", "--to", "pg")
    project.ok("rollback", "notes")
    others = stranger(project)
    assert any(others.values())
    before, held, files = digests(project.folder), rows(project), published(project)
    for words, why in (
        (["retire", "notes", "--confirm", "notes"], "is kept until"),
        (["retire", "notes", "--now"], "--confirm notes"),
        (["retire", "notes", "--now", "--confirm", "other"], '"other" is not "notes"'),
    ):
        refused = project.run(*words)
        assert refused.returncode == 5, words
        assert why in " ".join(refused.stderr.split())
    assert "pg: the rows of workspace" in project.ok("retire", "notes", "--now", "--dry-run")
    assert (digests(project.folder), rows(project)) == (before, held)
    assert "pg is kept until" in project.ok("status")
    assert json.loads(project.ok("status", "--json"))["databases"][0]["kept"][0]["backend"] == "pg"

    project.ok("retire", "notes", "--now", "--confirm", "notes")
    assert all(value[0] == 0 for value in rows(project).values())
    assert neighbours(project) == others
    assert published(project) == files
    assert "kept" not in registry(project)
    assert project.dsn
    assert run_sql(project.dsn, "SELECT * FROM hybridrag_ledger.migration") == []
    assert "Nothing is kept" in project.ok("retire", "notes", "--now", "--confirm", "notes")
    assert project.run("rollback", "notes").returncode == 6
    assert "No changes" in project.ok("apply", "--auto-approve")


def test_retire_deletes_the_files_of_the_database_and_no_others(project: Project) -> None:
    """After a short window; what a user keeps beside them stays."""
    (project.data / "my notes.txt").write_text("mine", encoding="utf-8")
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text() + "    lifecycle: {keep_source: 0m, prevent_destroy: true}\n")
    project.ok("migrate", "notes", "--to", "pg")
    held = rows(project)
    refused = project.run("retire", "notes", "--confirm", "notes")
    assert (refused.returncode, "prevent_destroy" in refused.stderr) == (5, True)
    spec.write_text(spec.read_text().replace(", prevent_destroy: true", ""))
    project.ok("retire", "notes", "--confirm", "notes")
    assert {path.name for path in project.data.iterdir()} == {"my notes.txt", ".hybridrag"}
    assert [path.name for path in (project.data / ".hybridrag").iterdir()] == ["notes"], (
        "where it moved to is noted"
    )
    assert rows(project) == held
    assert "No changes" in project.ok("apply", "--auto-approve")
    assert project.run("rollback", "notes").returncode == 6


def test_retire_refuses_what_was_written_since_and_what_serves(project: Project) -> None:
    """Files that another database of the spec is served from stay, and so does what a stranger wrote to."""
    project.ok("migrate", "notes", "--to", "pg")
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text("utf-8")
    wanted = yaml.safe_load(text)
    twin = {**wanted["databases"]["notes"], "backend": "files", "workspace": "twin"}
    wanted["databases"]["twin"] = twin
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    before = digests(project.data)
    refused = project.run("retire", "notes", "--now", "--confirm", "notes")
    assert refused.returncode in (3, 5), refused.stderr
    assert digests(project.data) == before
    spec.write_text(text, encoding="utf-8")
    os.utime(project.data / "vdb_chunks.json")
    refused = project.run("retire", "notes", "--now", "--confirm", "notes")
    assert refused.returncode == 5
    assert "--allow other_data" in refused.stderr
    assert digests(project.data) == before
    project.ok("retire", "notes", "--now", "--confirm", "notes", "--allow", "other_data")
    assert not digests(project.data)


@pytest.mark.parametrize("bad", ["7", "1w", "-1d", "seven days"])
def test_keep_source_is_a_time(project: Project, bad: str) -> None:
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text() + f'    lifecycle: {{keep_source: "{bad}"}}\n')
    refused = project.run("validate")
    assert refused.returncode == 3
    assert "7d" in refused.stderr


def test_the_folder_may_be_read_only(project: Project, tmp_path: Path) -> None:
    """A deletion that the system forbids is told in words, and is gone on with later."""
    if os.geteuid() == 0:
        pytest.skip("root may delete everything")
    project.ok("migrate", "notes", "--to", "pg")
    project.data.chmod(0o500)
    try:
        refused = project.run("retire", "notes", "--now", "--confirm", "notes")
        assert refused.returncode == 4
    finally:
        project.data.chmod(0o700)
    project.ok("retire", "notes", "--now", "--confirm", "notes")


def test_a_deletion_that_was_cut_off_is_gone_on_with(project: Project) -> None:
    """Half of the files gone and the registry knowing it: no way back any more, the next retire ends it."""
    project.ok("migrate", "notes", "--to", "pg")
    asyncio.run(located(project).pointer.retiring("notes", "json", tuple(Slot)))
    (project.data / "vdb_chunks.json").unlink()
    assert "was begun" in project.ok("status")
    assert project.run("rollback", "notes", "--discard-new", "--yes").returncode == 6
    project.ok("retire", "notes", "--confirm", "notes")
    assert not digests(project.data)


def test_the_last_whole_copy_is_not_retired(project: Project) -> None:
    """What serves lost records: exit 7 with their number, and the files stay; after a repair they may go."""
    project.ok("migrate", "notes", "--to", "pg")
    assert project.dsn
    run_sql(
        project.dsn,
        "DELETE FROM lightrag_doc_full WHERE id IN (SELECT id FROM lightrag_doc_full LIMIT 3) RETURNING 1",
    )
    before = digests(project.data)
    refused = project.run("retire", "notes", "--now", "--confirm", "notes")
    assert refused.returncode == 7
    assert "3 of 14 documents" in refused.stderr
    assert digests(project.data) == before
    project.ok("repair", "notes", "--auto-approve")
    project.ok("retire", "notes", "--now", "--confirm", "notes")
    assert not digests(project.data)
