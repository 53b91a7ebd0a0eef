"""Small broken databases, one defect each: `fail` names it before anything is written, `quarantine` moves the rest."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hybridrag.backends.json.files import file_of
from hybridrag.cli import main
from tests.conftest import EXAMPLE, Project, Server, clean_environment, digests, make_project
from tests.support.quarantined import held, lines
from tests.support.spoiling import (
    GRAPH,
    Change,
    cut,
    edit,
    first,
    kv,
    matrix_of,
    not_a_number,
    put_matrix,
    spec,
    swapped,
    twice_in_kv,
    twice_in_vdb,
    vdb,
)
from tests.support.streams import NAMES
from tests.support.target import content, rows_held, run_sql
from tests.support.untouched import serving, steps_begun, words

RECORDS = 527
"""In the example's database."""
QUARANTINE = spec("backend: pg", "backend: pg\n    migration: {on_bad_record: quarantine}")


@dataclass(frozen=True)
class Defect:
    """How a database is spoiled; the bad records by stream with words of their reasons; records that it adds."""

    change: Change
    bad: dict[str, tuple[str, ...]]
    added: int = 0


def edge_of_a_missing_node(project: Project) -> None:
    """The first edge leads to a node that is not there."""
    edit(GRAPH, 'target="', 'target="Nobody ')(project)


def node_that_cannot_be_held(project: Project) -> None:
    """The end of an edge has NaN in it: the node and, for want of it, all of its edges."""
    path = project.data / GRAPH
    text = path.read_text("utf-8")
    key = '<key id="d99" for="node" attr.name="rank" attr.type="double"/>'
    at = text.index("<node ")
    end = text.index("</node>", at)
    text = text[:end] + '<data key="d99">nan</data>' + text[end:]
    at = text.index("<key ")
    path.write_text(text[:at] + key + text[at:], "utf-8")


def node_twice(project: Project) -> None:
    path = project.data / GRAPH
    text = path.read_text("utf-8")
    start = text.index("<node ")
    end = text.index("</node>") + len("</node>")
    again = text.rindex("</node>") + len("</node>")
    path.write_text(text[:again] + text[start:end] + text[again:], "utf-8")


def edge_twice(project: Project) -> None:
    path = project.data / GRAPH
    text = path.read_text("utf-8")
    start = text.index("<edge ")
    end = text.index("</edge>") + len("</edge>")
    again = text.rindex("</edge>") + len("</edge>")
    path.write_text(text[:again] + text[start:end] + text[again:], "utf-8")


def shorter_vector(whole: dict[str, Any]) -> None:
    """The row's own copy has half of the dimensions."""
    row = whole["data"][0]
    half = zlib.decompress(base64.b64decode(row["vector"]))
    row["vector"] = base64.b64encode(zlib.compress(half[: len(half) // 2])).decode()


def no_vector_at_all(whole: dict[str, Any]) -> None:
    """Neither of the two copies: the row's is missing, the matrix has NaN."""
    matrix = matrix_of(whole)
    matrix[3] = math.nan
    put_matrix(whole, matrix)
    del whole["data"][3]["vector"]


DEFECTS = {
    "NUL": Defect(kv("full_docs", lambda w: first(w).update(content="a\0b")), {"full_docs": ("NUL",)}),
    "NUL inside JSON": Defect(
        kv("doc_status", lambda w: first(w)["metadata"].update(note="a\0b")), {"doc_status": ("NUL",)}
    ),
    "key too long": Defect(
        kv("full_docs", lambda w: w.update({"doc-" + "x" * 300: first(w)})), {"full_docs": ("304 characters",)}, 1
    ),
    "lone surrogate": Defect(
        kv("text_chunks", lambda w: first(w).update(content="a\ud800b")), {"text_chunks": ("lone surrogate",)}
    ),
    "lone surrogate in a key": Defect(
        kv("full_entities", lambda w: w.update({"doc-\udfff": first(w)})), {"full_entities": ("lone surrogate",)}, 1
    ),
    "NaN in a key-value file": Defect(
        kv("doc_status", lambda w: first(w)["metadata"].update(score=math.nan)), {"doc_status": ("NaN",)}
    ),
    "NaN in a vector": Defect(vdb("entities", not_a_number), {"entities": ("NaN",)}),
    "NaN in the graph": Defect(
        edit(GRAPH, '<data key="d7">1.0</data>', '<data key="d7">nan</data>'), {"edges": ("NaN",)}
    ),
    "a number of more than 64 bits": Defect(
        kv("doc_status", lambda w: first(w)["metadata"].update(n=2**64 + 1)), {"doc_status": ("64 bits",)}
    ),
    "wrong type": Defect(
        kv("text_chunks", lambda w: first(w).update(tokens="many")), {"text_chunks": ("32-bit integer",)}
    ),
    "time that is none": Defect(
        kv("doc_status", lambda w: first(w).update(created_at="yesterday")), {"doc_status": ("ISO 8601",)}
    ),
    "nested without end": Defect(
        edit("kv_store_doc_status.json", '"metadata": {', '"metadata": {"deep": ' + "[" * 3000 + "]" * 3000 + ","),
        {"doc_status": ("nested deeper",)},
    ),
    "no object": Defect(
        kv("full_entities", lambda w: w.update({"doc-x": 3})), {"full_entities": ("not an object",)}, 1
    ),
    "id twice in a kv file": Defect(twice_in_kv, {"text_chunks": ("record twice",)}, 1),
    "id twice in a vector file": Defect(vdb("chunks", twice_in_vdb), {"chunks": ("record twice",)}, 1),
    "node twice": Defect(node_twice, {"nodes": ("record twice",)}, 1),
    "edge twice": Defect(edge_twice, {"edges": ("record twice",)}, 1),
    "edge to nowhere": Defect(edge_of_a_missing_node, {"edges": ('"Nobody ',)}),
    "node that cannot be held": Defect(node_that_cannot_be_held, {"nodes": ("NaN",), "edges": ("does not exist",)}),
    "wrong dimension of one vector": Defect(vdb("chunks", shorter_vector), {"chunks": ("cannot be decoded",)}),
    "missing vector": Defect(vdb("chunks", no_vector_at_all), {"chunks": ("NaN",)}),
    "matrix and data disagree": Defect(
        vdb("entities", swapped), {"entities": ("two different vectors", "two different vectors")}
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[str]:
    """One Postgres database; every case has a workspace of its own in it."""
    name = f"quarantine_{os.getpid()}"
    run_sql(server.dsn("tester"), f"CREATE DATABASE {name}")
    yield name
    run_sql(server.dsn("tester"), f"DROP DATABASE {name} WITH (FORCE)")


def here(project: Project, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command in this process, which saves its start-up."""
    kept = clean_environment()
    done = CliRunner().invoke(main, argv, env={name: kept.get(name) for name in os.environ})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, done.stderr)


def done_event(project: Project) -> dict[str, Any]:
    found = [json.loads(line) for line in (project.folder / "events.jsonl").read_text().splitlines()]
    assert found[-1]["type"] == "run_done"
    return found[-1]


APPLY = ("apply", "--auto-approve", "--events", "events.jsonl")


@pytest.mark.parametrize(
    ("number", "defect"),
    [
        pytest.param(number, defect, marks=[pytest.mark.slow] if number % 2 else [], id=name)
        for number, (name, defect) in enumerate(DEFECTS.items())
    ],
)
def test_one_defect_stops_the_move_or_goes_into_quarantine(
    tmp_path: Path, server: Server, shared: str, number: int, defect: Defect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fail` names the record; `quarantine` moves all others, which are then proved equal, and loses nothing."""
    project = make_project(tmp_path / "project", server, shared, EXAMPLE / "archive")
    spec("path: ./notes", f"path: ./notes\n    workspace: w{number}")(project)
    defect.change(project)
    before = digests(project.data)
    monkeypatch.chdir(project.folder)
    refused = here(project, *APPLY)
    assert refused.returncode == 5, refused.stdout + refused.stderr
    assert steps_begun(project)[-1] == "validate"
    assert held(project) == []
    assert all(reason in words(refused.stderr) for reasons in defect.bad.values() for reason in reasons[:1])
    assert "(record " in words(refused.stderr)
    planned = here(project, "plan")
    assert planned.returncode == 5, "what was found is remembered while the source stands"
    assert planned.stderr == refused.stderr

    QUARANTINE(project)
    applied = here(project, *APPLY)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert serving(project) == "pg"
    assert digests(project.data) == before
    (path,) = held(project)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = lines(path)
    for stream, reasons in defect.bad.items():
        mine = [line for line in found if line["stream"] == stream]
        assert len(mine) >= len(reasons)
        assert all(any(reason in line["reason"] for line in mine) for reason in reasons)
        assert all(line["position"] >= 1 and line["key"] for line in mine)
        wants_vector = stream in ("chunks", "entities", "relationships")
        assert all(("vector" in line) == wants_vector for line in mine)
    assert {line["stream"] for line in found} == set(defect.bad)
    rows = sum(
        row[0]
        for name, row in content(server.dsn(shared), f"w{number}").items()
        if name.lower().startswith("lightrag")
    )
    assert rows + len(found) == RECORDS + defect.added
    told = done_event(project)
    assert told["quarantined"] == {"notes": len(found)}
    assert f"{len(found):,} in quarantine" in words(applied.stdout)
    # Verifying again finds the same records left out, and everything else equal.
    again = here(project, "verify", "notes", "--json")
    assert again.returncode == 0, again.stderr
    assert (json.loads(again.stdout)["equal"], json.loads(again.stdout)["refused"]) == (True, len(found))


@pytest.mark.parametrize(
    "change",
    [
        cut("kv_store_text_chunks.json", 0.5),
        cut("vdb_entities.json", 0.9),
        edit("kv_store_text_chunks.json", '"chunk_order_index": 2,', '"chunk_order_index": ,'),
        edit(GRAPH, "</node>", "</nodes>"),
        vdb("chunks", lambda whole: put_matrix(whole, matrix_of(whole)[:-1])),
    ],
    ids=["kv truncated", "vdb truncated", "kv malformed", "graph malformed", "matrix too short"],
)
def test_what_lightrag_cannot_open_is_not_guessed_at(
    tmp_path: Path, server: Server, shared: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is cut off or is no JSON is refused in quarantine, too; nothing is written."""
    project = make_project(tmp_path / "project", server, shared, EXAMPLE / "archive")
    QUARANTINE(project)
    change(project)
    monkeypatch.chdir(project.folder)
    refused = here(project, *APPLY)
    assert refused.returncode == 4
    assert "restore" in words(refused.stderr)
    assert held(project) == []
    assert serving(project) is None


SPOILED = ("NUL", "id twice in a kv file", "NaN in a vector", "node that cannot be held", "edge to nowhere")


def spoil(project: Project) -> None:
    for name in SPOILED:
        DEFECTS[name].change(project)


@pytest.mark.slow
def test_a_killed_run_writes_the_quarantine_once(tmp_path: Path, project: Project) -> None:
    """Killed in every step and resumed: one file, each record once, and the counts add up."""
    QUARANTINE(project)
    spec("on_bad_record: quarantine", "on_bad_record: quarantine, batch: 3")(project)
    spoil(project)
    seen: set[frozenset[bytes]] = set()  # streams are examined side by side: their order is not fixed
    for step in ("validate", "migrate", "verify"):
        (project.folder / "events.jsonl").unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridrag", *APPLY],
            cwd=project.folder,
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 60:
            events = project.folder / "events.jsonl"
            if events.exists() and f'"step_started", "step": "{step}.' in events.read_text():
                time.sleep(0.05)
                break
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen |= {frozenset(path.read_bytes().splitlines()) for path in held(project)}
    last = project.run(*APPLY)
    assert last.returncode == 0, last.stdout + last.stderr
    (path,) = held(project)
    assert seen <= {frozenset(path.read_bytes().splitlines())}
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    found = lines(path)
    places = [(line["stream"], line["position"]) for line in found]
    assert len(places) == len(set(places))
    assert project.dsn is not None
    assert rows_held(project.dsn) + len(found) == RECORDS + 1
    assert done_event(project)["quarantined"] == {"notes": len(found)}
    assert "0 missing, 0 extra, 0 different" in last.stdout


def test_migrate_counts_them_for_programs(project: Project) -> None:
    """`records_migrated` and `records_failed` add up to the source; people read where they are."""
    QUARANTINE(project)
    spec("backend: pg", "backend: files")(project)
    spoil(project)
    told = json.loads(project.ok("migrate", "notes", "--to", "pg", "--json"))
    (path,) = held(project)
    assert told["records_failed"] == len(lines(path)) > 4
    assert told["records_migrated"] + told["records_failed"] == RECORDS + 1
    assert told["verification"] == {"record_counts_match": True, "sample_queries_pass": True}
    shown = words(project.ok("verify", "notes"))
    assert f"{told['records_failed']} records of the source cannot be held there" in shown
    assert "in quarantine" in shown
    assert "do not exist, as in the source" not in shown
    # Back to files: what is in Postgres comes whole, nothing is left out on the way.
    whole = path.read_bytes()
    assert json.loads(project.ok("migrate", "notes", "--to", "files", "--json"))["records_failed"] == 0
    assert held(project) == [path]
    assert path.read_bytes() == whole
    assert all((project.data / file_of(name)).exists() for name in NAMES)


def test_a_quarantine_that_cannot_be_written_stops_the_move(project: Project) -> None:
    """Nothing is left out that is not kept somewhere."""
    QUARANTINE(project)
    spoil(project)
    place = project.folder / "state" / "test" / "quarantine"
    place.parent.mkdir(parents=True)
    place.write_text("in the way")
    stopped = project.run(*APPLY)
    assert stopped.returncode == 4, stopped.stdout
    assert "the quarantine" in words(stopped.stderr)
    assert "Traceback" not in stopped.stderr
    assert steps_begun(project)[-1] == "validate"
    place.unlink()
    assert "in quarantine" in project.ok(*APPLY)
    assert len(held(project)) == 1


def test_fail_after_quarantine_a_lost_file_and_what_is_written_later(project: Project) -> None:
    """An examination serves for one answer and beside its file only; a catch-up puts new bad records aside as well."""
    QUARANTINE(project)
    spoil(project)
    stubborn = (
        'writer: {kind: command, pause: ["false"], resume: ["true"]}'  # the run goes as far as the pause
    )
    spec("    path: ./notes\n", f"    path: ./notes\n    {stubborn}\n")(project)
    assert project.run(*APPLY).returncode == 5
    (path,) = held(project)
    whole = path.read_bytes()

    path.unlink()
    assert project.run(*APPLY).returncode == 5
    assert sorted(path.read_bytes().splitlines()) == sorted(
        whole.splitlines()
    )  # streams are examined side by side

    spec("on_bad_record: quarantine", "on_bad_record: fail")(project)
    refused = project.run(*APPLY)
    assert refused.returncode == 5, refused.stdout
    assert "cannot hold" in words(refused.stderr)
    spec("on_bad_record: fail", "on_bad_record: quarantine")(project)

    kv("full_entities", lambda w: w.update({"doc-good": first(w), "doc-\udfff": first(w)}))(project)
    kv("full_docs", lambda w: first(w).update(content="repaired"))(project)
    spec('["false"]', '["true"]')(project)
    done = project.run(*APPLY)
    assert done.returncode == 0, done.stdout + done.stderr
    found, before = lines(path), [json.loads(line) for line in whole.splitlines()]
    assert {line["key"] for line in found} - {line["key"] for line in before} == {"doc-\udfff"}
    assert [line["stream"] for line in before if line not in found] == ["full_docs"]
    assert project.dsn is not None
    assert rows_held(project.dsn) + len(found) == RECORDS + 3
    assert done_event(project)["quarantined"] == {"notes": len(found)}
    assert f"! {len(found)} records of the source cannot" in words(project.ok("verify", "notes"))
