"""A database that is written all day: copied while LightRAG goes on, held still for a moment, nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hybridrag.journal import begun_switches
from tests.conftest import ROOT, Project, clean_environment, digests
from tests.support.milvus import MilvusServer
from tests.support.target import run_sql

STOP = """\
import pathlib, sys, time
control = pathlib.Path(sys.argv[1])
(control / "stop").touch()
while not (control / "stopped").exists():
    time.sleep(0.02)
"""
START = """\
import pathlib, sys
control = pathlib.Path(sys.argv[1])
(control / "started").open("a").write("x")
(control / "stop").unlink(missing_ok=True)
(control / "stopped").unlink(missing_ok=True)
"""


@pytest.fixture
def control(tmp_path: Path, project: Project) -> Path:
    """The writer's control folder; the spec names two commands that use it."""
    folder = tmp_path / "control"
    folder.mkdir()
    (folder / "stop.py").write_text(STOP, encoding="utf-8")
    (folder / "start.py").write_text(START, encoding="utf-8")
    commands = {
        which: [sys.executable, str(folder / f"{script}.py"), str(folder)]
        for which, script in (("pause", "stop"), ("resume", "start"))
    }
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["databases"]["notes"]["writer"] = {"kind": "command", **commands, "timeout": 60}
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    return folder


@contextlib.contextmanager
def writing(project: Project, control: Path) -> Iterator[None]:
    """A LightRAG process that inserts one document after the other."""
    argv = [sys.executable, "-m", "tests.support.writing_process", str(project.data), str(control)]
    env = clean_environment(PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
    with (
        (control / "log").open("wb") as log,
        subprocess.Popen(argv, cwd=control, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while len(inserted(control)) < 1:
                assert process.poll() is None, (control / "log").read_text("utf-8", "replace")[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.kill()


def inserted(control: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return (control / "inserted").read_text("utf-8").split()
    return []


def test_nothing_that_is_written_during_the_copy_is_lost(project: Project, control: Path) -> None:
    """Every document that LightRAG reported as inserted before it was stopped is served by Postgres, record for record."""
    plan = [step["id"] for step in json.loads(project.ok("plan", "--json"))["steps"]]
    assert plan == [
        "validate.notes",
        "migrate.notes",
        "verify.notes",
        "follow.notes",
        "pause.notes",
        "catch_up.notes",
        "switch.notes",
        "resume.notes",
    ]
    with writing(project, control):
        before = len(inserted(control))
        said = project.ok("apply", "--auto-approve", "--events", "events.jsonl")
        assert (control / "started").read_text() == "x"
    events = [json.loads(line) for line in (project.folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert "reading the source" not in {event.get("phase") for event in events}, "a whole pass was made"
    paused = events[-1]["paused"]["notes"]
    assert f"writer of notes paused {paused:.1f} s" in said
    assert 0 < paused < events[-1]["seconds"]
    assert project.dsn
    there = {row[0] for row in run_sql(project.dsn, "SELECT file_path FROM lightrag_doc_status")}
    # The registry is all that tells the writer; it went on in the files after it was started again.
    stopped_at = [name for name in inserted(control) if name in there]
    assert len(stopped_at) >= before
    assert stopped_at == inserted(control)[: len(stopped_at)], (
        "a document is missing among those that are there"
    )
    again = project.ok("apply", "--auto-approve")
    assert "somebody still writes there" in " ".join(again.split()), "nobody told the writer of this test"
    assert {path.name for path in project.data.glob(".hybridrag/*")} <= {"notes"}


@pytest.mark.long
def test_killed_again_and_again_while_somebody_writes(project: Project, control: Path) -> None:
    """SIGKILL at eight moments: the next apply ends with every document, and starts the writer again."""
    moments = random.Random(4)
    with writing(project, control):
        for _ in range(8):
            argv = [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--quiet"]
            with subprocess.Popen(argv, cwd=project.folder, env=clean_environment()) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=moments.uniform(0.8, 4.5))
                process.kill()
            if "files" not in project.ok("db", "list"):
                break
        project.ok("apply", "--auto-approve")
        assert not (control / "stop").exists(), "the writer was left stopped"
        assert "No changes" in project.ok("apply", "--auto-approve")
    assert project.dsn
    there = {row[0] for row in run_sql(project.dsn, "SELECT file_path FROM lightrag_doc_status")}
    known = [name for name in inserted(control) if name in there]
    assert known == inserted(control)[: len(known)]
    assert len(known) >= 1
    assert {path.name for path in project.data.glob(".hybridrag/*")} <= {"notes"}, (
        "a killed run's links were left behind"
    )


LATE = """\
import json, pathlib, sys
path = pathlib.Path(sys.argv[1]) / "kv_store_full_docs.json"
docs = json.loads(path.read_text("utf-8"))
docs[sys.argv[2]] = {"content": "written late", "file_path": "late.md"}
new = path.with_suffix(".new")
new.write_text(json.dumps(docs, ensure_ascii=False), "utf-8")
new.replace(path)
"""


@pytest.mark.parametrize(
    "point",
    [
        "switch.marked",
        "registry.before_replace",
        *(
            pytest.param(point, marks=pytest.mark.slow)
            for point in ("pause.done", "catch_up.done", "registry.replaced", "resume.begins")
        ),
    ],
)
def test_killed_while_the_writer_stood(project: Project, control: Path, point: str) -> None:
    """Started by hand, it writes on in the files while they serve; the next apply finishes, with all of that."""
    at_the_pause(control, f"sys.argv[1:] = [{str(project.data)!r}, 'doc-at-the-pause']\n{LATE}")
    killed = project.run("apply", "--auto-approve", HYBRIDRAG_FAILPOINTS=f"{point}=kill")
    assert killed.returncode == -9
    if in_files := "files" in project.ok("db", "list"):
        subprocess.run([sys.executable, "-c", LATE, str(project.data), "doc-after-the-kill"], check=True)
    planned = project.ok("plan")
    refused = project.run("db", "remove", "notes", "--yes")
    assert refused.returncode == 5
    assert "a run that was cut off left its writer stopped" in refused.stderr
    project.ok("apply", "--auto-approve")
    assert "No changes" in project.ok("apply", "--auto-approve")
    assert project.dsn
    late = run_sql(project.dsn, "SELECT count(*) FROM lightrag_doc_full WHERE content = 'written late'")
    assert late == [(2 if in_files else 1,)], planned
    assert begun_switches(project.folder / "state" / "test" / "journal.db") == {}
    assert (control / "started").read_text() == "x"
    assert {path.name for path in project.data.glob(".hybridrag/*")} <= {"notes"}


def test_a_writer_that_cannot_be_stopped_is_told_and_started_again(project: Project, control: Path) -> None:
    """Exit 5 with the command's own last words; the files serve, and are as they were."""
    (control / "stop.py").write_text("import sys; sys.exit('unit notes is masked')", encoding="utf-8")
    before = digests(project.data)
    refused = project.run("apply", "--auto-approve")
    assert refused.returncode == 5
    assert "databases.notes.writer.pause" in refused.stderr
    assert "unit notes is masked" in refused.stderr
    assert (control / "started").read_text() == "x"
    assert digests(project.data) == before
    assert "paused" not in project.ok("status")


def test_a_file_that_was_written_anew_without_a_change_costs_nothing(project: Project, control: Path) -> None:
    """Its fingerprint is another one, so it is read again; no record differs."""
    path = project.data / "kv_store_llm_response_cache.json"
    (control / "stop.py").write_text(
        STOP.replace("while not", "(control / 'stopped').touch()\nwhile not")
        + f"path = pathlib.Path({str(path)!r})\ntext = path.read_text('utf-8')\n"
        "new = path.with_suffix('.new')\nnew.write_text(text, 'utf-8')\nnew.replace(path)\n",
        encoding="utf-8",
    )
    said = project.ok("apply", "--auto-approve")
    assert "written since the copy: 0 new or changed, 0 removed" in said
    assert "No changes" in project.ok("apply", "--auto-approve")


def at_the_pause(control: Path, code: str) -> None:
    """The last that the writer does before it stands."""
    (control / "stop.py").write_text(
        STOP.replace("while not", "(control / 'stopped').touch()\nwhile not") + code, encoding="utf-8"
    )


def respecify(project: Project, **changes: object) -> None:
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["databases"]["notes"] |= changes
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")


INSERT = """
import asyncio, asyncpg
async def write():
    opened = await asyncpg.connect({dsn!r})
    async with opened.transaction():
        await opened.execute("INSERT INTO lightrag_doc_full (id, workspace, doc_name, content) "
                             "VALUES ('late', 'notes', 'n', 'written last')")
        await opened.execute("DELETE FROM lightrag_llm_cache WHERE workspace = 'notes' AND id = "
                             "(SELECT min(id) FROM lightrag_llm_cache WHERE workspace = 'notes')")
    await opened.close()
asyncio.run(write())
"""


@pytest.mark.slow
def test_from_postgres_to_postgres_and_to_files_what_is_written_last_comes_along(
    project: Project, control: Path, database: str
) -> None:
    """To another server only what differs is read after the pause; to files everything, and the change is no obstacle."""
    at_the_pause(control, "")
    project.ok("apply", "--auto-approve")
    assert project.dsn
    run_sql(project.dsn, f"CREATE DATABASE {database}_2", "SELECT 1")
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["backends"]["pg2"] = {**wanted["backends"]["pg"], "database": f"{database}_2"}
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    try:
        respecify(project, backend="pg2")
        at_the_pause(control, INSERT.format(dsn=project.dsn))
        said = project.ok("apply", "--auto-approve", "--events", "events.jsonl")
        assert "written since the copy: 1 new or changed, 1 removed" in said
        assert "reading the source" not in (project.folder / "events.jsonl").read_text("utf-8")
        second = project.dsn.replace(database, f"{database}_2")
        assert run_sql(second, "SELECT content FROM lightrag_doc_full WHERE id = 'late'") == [
            ("written last",)
        ]
        respecify(project, backend="files")
        at_the_pause(control, INSERT.format(dsn=second).replace("late", "last"))
        plan = [step["verb"] for step in json.loads(project.ok("plan", "--json"))["steps"]]
        assert plan == ["pause", "validate", "migrate", "verify", "switch", "resume"]
        project.ok("apply", "--auto-approve", "--allow", "replace_kept")
        docs = json.loads((project.data / "kv_store_full_docs.json").read_text("utf-8"))
        assert {docs["late"]["content"], docs["last"]["content"]} == {"written last"}
        assert "No changes" in project.ok("apply", "--auto-approve")
    finally:
        run_sql(project.dsn, f"DROP DATABASE {database}_2 WITH (FORCE)", "SELECT 1")


@pytest.mark.long
def test_vectors_in_milvus_and_the_rest_in_postgres(
    project: Project, control: Path, milvus: MilvusServer, vector_database: str
) -> None:
    """Both parts are copied while LightRAG goes on; one pause, and both hold the same documents."""
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["backends"]["vectors"] = {"type": "milvus", "uri": milvus.uri, "database": vector_database}
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    respecify(project, backend={"kv": "pg", "doc_status": "pg", "graph": "pg", "vector": "vectors"})
    with writing(project, control):
        before = len(inserted(control))
        said = project.ok("apply", "--auto-approve")
    assert "writer of notes paused" in said
    assert project.dsn
    there = {row[0] for row in run_sql(project.dsn, "SELECT file_path FROM lightrag_doc_status")}
    known = [name for name in inserted(control) if name in there]
    assert known == inserted(control)[: len(known)]
    assert len(known) >= before
    chunks = {row[0] for row in run_sql(project.dsn, "SELECT id FROM lightrag_doc_chunks")}
    client = milvus.client(vector_database)
    (name,) = [name for name in client.list_collections() if "_chunks" in name]
    rows = client.query(
        name, filter='id != ""', output_fields=["id"], limit=10_000, consistency_level="Strong"
    )
    assert {row["id"] for row in rows} == chunks
    assert "No changes" in project.ok("apply", "--auto-approve")


def test_what_the_target_cannot_hold_is_found_also_when_it_is_written_last(
    project: Project, control: Path
) -> None:
    """The old backend serves, the writer is started again, and the record is named."""
    path = project.data / "kv_store_full_docs.json"
    at_the_pause(
        control,
        f"import json\npath = pathlib.Path({str(path)!r})\nvalue = json.loads(path.read_text('utf-8'))\n"
        "value['late'] = {'content': chr(0)}\nnew = path.with_suffix('.new')\n"
        "new.write_text(json.dumps(value, indent=2, ensure_ascii=False), 'utf-8')\nnew.replace(path)\n",
    )
    refused = project.run("apply", "--auto-approve")
    assert refused.returncode != 0
    assert "late" in refused.stderr
    assert "NUL" in refused.stderr
    assert (control / "started").read_text() == "x"
    assert "files" in project.ok("db", "list")
    assert {path.name for path in project.data.glob(".hybridrag/*")} <= {"notes"}
