"""`init`, `db …` and `migrate` as a user types them: what they write, what they refuse, and that a refusal writes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import psycopg
import pytest
import yaml

from hybridrag.journal import Journal, Lease
from tests.conftest import EXAMPLE, Project, clean_environment, digests
from tests.support.places import forget_notes
from tests.support.target import run_sql

PASSWORD = "p@cAn4ry0wl"


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    """A folder with the example's data and no spec."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copytree(EXAMPLE / "archive", folder / "notes")
    return Project(folder, folder / "notes", None)


def wants_json(project: Project) -> str:
    """The project's database is on its files, and wanted there; returns the spec's text."""
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text(encoding="utf-8").replace("    backend: pg", "    backend: files   # here")
    spec.write_text(text, encoding="utf-8")
    return text


def registry(project: Project) -> dict[str, dict[str, object]]:
    path = next(project.folder.glob("state/*/registry.yaml"))
    databases: dict[str, dict[str, object]] = yaml.safe_load(path.read_text())["databases"]
    return databases


def refused(project: Project, code: int, *argv: str, **variables: str) -> str:
    """The words of a refusal that leaves every file as it was."""
    before = {name: digest for name, digest in digests(project.folder).items() if "journal.db" not in name}
    done = project.run(*argv, **variables)
    after = {name: digest for name, digest in digests(project.folder).items() if "journal.db" not in name}
    assert done.returncode == code, f"{argv} -> {done.returncode}\n{done.stdout}{done.stderr}"
    assert after == before
    assert "Traceback" not in done.stderr
    assert "→" in done.stderr or '"next"' in done.stderr
    return done.stderr


def test_init_writes_a_valid_spec_once(empty: Project) -> None:
    """It validates and plans at once, and is never overwritten."""
    assert "written: hybridrag.yaml" in empty.ok("init")
    assert "databases: none" in empty.ok("validate")
    assert "No changes" in empty.ok("plan")
    assert "left as it is" in refused(empty, 1, "init")
    assert json.loads(empty.ok("init", "-f", "other.yaml", "--json"))["spec"].endswith("other.yaml")


def test_create_list_show_remove(empty: Project) -> None:
    """From nothing to a database in spec and registry, and back to the same bytes; the data is never touched."""
    empty.ok("init")
    spec = empty.folder / "hybridrag.yaml"
    before, data = spec.read_text(), digests(empty.data)
    told = json.loads(
        empty.ok("db", "create", "notes", "--path", "notes", "--embedding-model", "m", "--json")
    )
    assert (told["path"], told["backend_type"], told["workspace"]) == (str(empty.data), "json", "notes")
    assert told["embedding"] == {"model": "m", "dim": 96}  # read from the files
    assert registry(empty)["notes"]["path"] == str(empty.data)
    assert "No changes" in empty.ok("plan")
    everything = digests(empty.folder)
    listed = json.loads(empty.ok("db", "list", "--json"))
    assert [each["name"] for each in listed["databases"]] == ["notes"]
    shown = json.loads(empty.ok("db", "show", "notes", "--json"))
    assert {key: shown[key] for key in listed["databases"][0]} == listed["databases"][0]
    assert shown["where"].startswith("hybridrag.yaml:")
    assert digests(empty.folder) == everything  # looking writes nothing

    assert "--yes" in refused(empty, 5, "db", "remove", "notes")
    said = empty.ok("db", "remove", "notes", "--yes")
    assert f"nothing was deleted. Its data is still here:\n  JSON files in {empty.data}" in said
    assert spec.read_text() == before
    assert registry(empty) == {}
    assert digests(empty.data) == data
    for verb in ("show", "remove"):
        assert "not in the spec" in refused(empty, 1, "db", verb, "notes")


def test_a_spec_is_begun_where_there_is_none(empty: Project) -> None:
    """A new, empty database can be planned and written to at once."""
    empty.ok("db", "create", "fresh", "--embedding-dim", "8")
    assert (empty.folder / "databases" / "fresh").is_dir()
    assert "Nothing to move" in empty.ok("plan")
    assert "fresh" in empty.ok("db", "list")


def test_what_a_killed_create_left_is_taken_up(empty: Project) -> None:
    """The registry is written before the spec: an entry of the same folder is no obstacle, another one is."""
    empty.ok("db", "create", "notes", "--path", "notes")
    spec = empty.folder / "hybridrag.yaml"
    text = spec.read_text()
    spec.write_text(text.replace(text[text.index("  notes:\n") :], ""), encoding="utf-8")
    spec.write_text(spec.read_text().replace("databases:   ", "databases: {}"), encoding="utf-8")
    said = refused(empty, 1, "db", "create", "notes", "--path", "other", "--embedding-dim", "8")
    assert "the registry knows one" in said
    empty.ok("db", "create", "notes", "--path", "notes")
    assert spec.read_text() == text


@pytest.mark.parametrize(
    ("code", "argv", "why"),
    [
        (1, ("notes", "--path", "elsewhere", "--embedding-dim", "8"), "in the spec already"),
        (2, ("two",), "--embedding-dim"),
        (2, ("two", "--path", "."), "holds no LightRAG database"),
        (2, ("two", "--path", "notes"), "the same folder"),
        (2, ("t w o", "--embedding-dim", "8"), "may hold letters"),
        (2, ("two", "--embedding-dim", "8", "--workspace", "a/b"), 'may hold no "/"'),
        (2, ("two", "--embedding-dim", "8", "--backend", "oracle"), "neither a backend of the spec nor a type"),
        (2, ("two", "--embedding-dim", "8", "--backend", "files", "--connection-string", "env:X"), "no --connection"),
        (2, ("two", "--embedding-dim", "8", "--backend", "postgres", "--connection-string", "x"), "no connection string"),
    ],
)  # fmt: skip
def test_what_create_refuses(project: Project, code: int, argv: tuple[str, ...], why: str) -> None:
    """Each with its exit code of the contract, in words, and nothing written."""
    wants_json(project)
    assert why in refused(project, code, "db", "create", *argv)
    assert not (project.folder / "state").exists()


def test_create_on_a_server(project: Project) -> None:
    """It connects first (exit 3); then a new database is served by the server at once, as nothing has to be moved."""
    said = refused(
        project,
        3,
        "db",
        "create",
        "two",
        "--backend",
        "pg",
        "--embedding-dim",
        "8",
        "--no-embedding-model",
        TEST_PG_PASSWORD="wrong",
    )
    assert "password" in said
    project.ok(
        "db",
        "create",
        "two",
        "--backend",
        "pg",
        "--embedding-dim",
        "8",
        "--workspace",
        "second",
        "--no-embedding-model",
    )
    assert registry(project)["two"]["backend"] == "pg"
    assert registry(project)["two"]["backend_config"]["postgres_workspace"] == "second"  # type: ignore[index]
    assert "No changes" in project.ok("plan", "--target", "two")
    said = project.ok("db", "remove", "two", "--yes")
    assert 'workspace "second" in backend "pg"' in said
    refused(
        project,
        2,
        "db",
        "create",
        "three",
        "--backend",
        "pg",
        "--embedding-dim",
        "8",
        "--workspace",
        "notes",
        "--no-embedding-model",
    )


def test_damaged_files_are_invalid_configuration(project: Project) -> None:
    """A database that could not be opened is not registered."""
    wants_json(project)
    shutil.copytree(project.data, project.folder / "broken")
    (project.folder / "broken" / "kv_store_full_docs.json").write_text("{")
    assert "damaged" in refused(project, 2, "db", "create", "two", "--path", "broken")


@pytest.mark.slow
def test_migrate_changes_the_spec_and_applies_it(project: Project) -> None:
    """A dry run writes nothing; the real one changes one line; the contract's JSON; twice is once; remove and create."""
    text = wants_json(project)
    spec = project.folder / "hybridrag.yaml"
    before = digests(project.folder)
    assert "copy 527 records" in project.ok("migrate", "notes", "--to", "postgres", "--dry-run")
    assert json.loads(project.ok("migrate", "notes", "--to", "pg", "--dry-run", "--json"))["steps"]
    assert digests(project.folder) == before
    told = json.loads(
        project.ok(
            "migrate",
            "notes",
            "--from",
            "json",
            "--to",
            "postgres",
            "--resume",
            "--batch-size",
            "50",
            "--json",
        )
    )
    assert told.pop("job_id")
    assert told.pop("duration_seconds") > 0
    assert told == {
        "database": "notes",
        "source_backend": "json",
        "target_backend": "postgres",
        "status": "completed",
        "records_migrated": 527,
        "records_failed": 0,
        "verification": {"record_counts_match": True, "sample_queries_pass": True},
        "checkpoint_file": None,
    }
    assert spec.read_text() == text.replace("backend: files   # here", "backend: pg   # here")
    assert "No changes" in project.ok("plan")
    assert json.loads(project.ok("migrate", "notes", "--to", "pg", "--json"))["records_migrated"] == 0
    said = project.ok("db", "remove", "notes", "--yes")
    assert 'workspace "notes" in backend "pg"' in said
    project.ok("db", "create", "notes", "--path", "notes", "--backend", "pg", "--embedding-model", "hash-emb")
    assert "1 step" in project.ok("plan")  # the data is there and verified: only the pointer is missing
    project.ok("apply", "--auto-approve")
    assert registry(project)["notes"]["backend"] == "pg"


def test_what_migrate_refuses(project: Project) -> None:
    """With the contract's exit codes, and nothing written."""
    wants_json(project)
    assert "not in the spec" in refused(project, 1, "migrate", "nope", "--to", "pg")
    assert "nothing is switched unverified" in refused(
        project, 1, "migrate", "notes", "--to", "pg", "--no-verify"
    )
    assert 'served by "files"' in refused(project, 2, "migrate", "notes", "--to", "pg", "--from", "postgres")
    assert "neither a backend" in refused(project, 3, "migrate", "notes", "--to", "nowhere")
    assert "password" in refused(project, 3, "migrate", "notes", "--to", "pg", TEST_PG_PASSWORD="wrong")
    chunks = project.data / "vdb_chunks.json"
    whole = chunks.read_bytes()
    chunks.write_bytes(whole[:-100])
    assert "damaged" in refused(project, 2, "migrate", "notes", "--to", "pg")
    chunks.write_bytes(whole)
    hidden = project.data.rename(project.folder / "hidden")
    assert "does not exist" in refused(project, 2, "migrate", "notes", "--to", "pg")
    hidden.rename(project.data)
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(spec.read_text().replace("dim: 96", "dim: 97"), encoding="utf-8")
    assert "96 dimensions" in refused(project, 2, "migrate", "notes", "--to", "pg")


def test_a_value_from_a_variable_is_not_overwritten(project: Project) -> None:
    """Where the backend's name comes from the environment, that is the place to change it."""
    text = wants_json(project)
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(text.replace("backend: files ", "backend: ${NOTES_BACKEND:-files} "), encoding="utf-8")
    assert "comes from a variable" in refused(project, 1, "migrate", "notes", "--to", "pg")


def test_nothing_is_edited_while_an_apply_runs(project: Project) -> None:
    """Exit 9, and spec and registry as they were."""
    wants_json(project)
    project.ok("db", "create", "two", "--embedding-dim", "8")
    with Journal(project.folder / "state" / "test" / "journal.db") as journal, Lease(journal, "somebody"):
        for argv in (
            ("db", "create", "three", "--embedding-dim", "8"),
            ("db", "remove", "two", "--yes"),
            ("migrate", "notes", "--to", "pg"),
        ):
            assert "another apply runs" in refused(project, 9, *argv)
            assert not (project.folder / "databases" / "three").exists()


def test_an_interrupted_migration_goes_on(project: Project) -> None:
    """Exit 5 and status paused; the spec keeps the wish, and the same command finishes from the checkpoint."""
    wants_json(project)
    argv = [
        sys.executable,
        "-m",
        "hybridrag",
        "migrate",
        "notes",
        "--to",
        "pg",
        "--batch-size",
        "1",
        "--json",
    ]
    assert project.dsn is not None
    with (
        psycopg.connect(project.dsn, autocommit=False) as held,
        subprocess.Popen(
            argv, cwd=project.folder, env=clean_environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process,
    ):  # fmt: skip
        while not copied(project.dsn):
            assert process.poll() is None
            time.sleep(0.005)
        # The rest of the copy waits for us, however fast the machine is.
        held.execute("LOCK TABLE lightrag_graph_edges IN ACCESS EXCLUSIVE MODE")
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
        held.rollback()
        out, said = process.communicate()
    assert process.returncode == 5, said
    told = json.loads(out)
    assert told["status"] == "paused"
    assert told["verification"] == {"record_counts_match": None, "sample_queries_pass": None}
    assert "hybridrag apply goes on" in said
    assert "backend: pg" in (project.folder / "hybridrag.yaml").read_text()
    told = json.loads(project.ok("migrate", "notes", "--to", "pg", "--resume", "--json"))
    assert (told["status"], told["records_migrated"]) == ("completed", 527)


def copied(dsn: str) -> int:
    """Records that are committed on the target."""
    with contextlib.suppress(asyncpg.PostgresError):
        return int(run_sql(dsn, "SELECT coalesce(sum(records), 0) FROM hybridrag_ledger.checkpoint")[0][0])
    return 0


def test_a_verification_that_fails(project: Project) -> None:
    """Exit 4: a row that was lost on the target is told, the registry is not switched."""
    wants_json(project)
    assert project.dsn is not None
    project.ok("migrate", "notes", "--to", "pg", "--json")
    run_sql(project.dsn, "UPDATE hybridrag_ledger.migration SET state = 'copied' RETURNING 1")
    run_sql(
        project.dsn,
        "DELETE FROM lightrag_doc_chunks WHERE id = (SELECT min(id) FROM lightrag_doc_chunks) RETURNING 1",
    )
    next(project.folder.glob("state/*/registry.yaml")).unlink()
    forget_notes(project)
    done = project.run("migrate", "notes", "--to", "pg", "--json")
    assert done.returncode == 4, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "failed"
    assert told["verification"] == {"record_counts_match": False, "sample_queries_pass": False}
    assert not list(project.folder.glob("state/*/registry.yaml"))


def test_on_a_terminal_it_asks(project: Project) -> None:
    """Only a yes moves or forgets; anything else leaves all as it was."""
    wants_json(project)
    before = digests(project.folder)
    assert "Move" in at_a_terminal(project, "n\n", 1, "migrate", "notes", "--to", "pg")
    assert 'Forget database "notes"?' in at_a_terminal(project, "\n", 5, "db", "remove", "notes")
    assert digests(project.folder) == before
    assert "forgotten" in at_a_terminal(project, "y\n", 0, "db", "remove", "notes")


def at_a_terminal(project: Project, answer: str, code: int, *argv: str) -> str:
    """What a command shows on a terminal where somebody types that answer."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "hybridrag", *argv], cwd=project.folder, env=clean_environment(),
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, answer.encode())
        said, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code, said
    return said


@pytest.mark.parametrize("how", ["literal", "stdin", "env", "file"])
def test_a_connection_string_is_never_written_into_the_spec(project: Project, how: str) -> None:
    """A reference is kept as one; the string itself goes to a private file; only a literal is warned of."""
    wants_json(project)
    dsn = str(project.dsn)
    (project.folder / "dsn").write_text(dsn + "\n", encoding="utf-8")
    given = {"literal": dsn, "stdin": "-", "env": "env:TEST_DSN", "file": "file:dsn"}[how]
    argv = [
        "db",
        "create",
        "two",
        "--backend",
        "postgres",
        "--embedding-dim",
        "8",
        "--workspace",
        "second",
        "--no-embedding-model",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "hybridrag", *argv, "--connection-string", given, "--json"],
        cwd=project.folder, env=clean_environment(TEST_DSN=dsn), input=dsn + "\n",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("can be seen by every user" in done.stderr) == (how == "literal")
    told = json.loads(done.stdout)
    spec = yaml.safe_load((project.folder / "hybridrag.yaml").read_text())
    reference = spec["backends"][told["backend"]]["connection_string"]
    assert list(reference) == [{"env": "env"}.get(how, "file")]
    kept = list(project.folder.glob("state/test/secrets/*"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o600] * (how in ("literal", "stdin"))
    secret = dsn.partition("@")[0].rpartition(":")[2]
    for path in {path for path in project.folder.rglob("*") if path.is_file()} - set(kept):
        if path.name not in ("dsn", ".env"):
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in done.stdout + done.stderr
    project.ok("plan", TEST_DSN=dsn)


def test_a_connection_string_that_does_not_connect(project: Project) -> None:
    """Exit 3, and no file of it is left."""
    wants_json(project)
    dsn = f"postgresql://nobody:{PASSWORD}@127.0.0.1:1/none"
    create = ("db", "create", "two", "--backend", "postgres", "--embedding-dim", "8", "--no-embedding-model")
    assert PASSWORD not in refused(project, 3, *create, "--connection-string", dsn)
    assert PASSWORD not in refused(
        project, 3, "migrate", "notes", "--to", "postgres", "--connection-string", dsn
    )
    assert not list(project.folder.glob("state/*/secrets"))
