"""`hybridrag watch`: files go in once, whatever is killed, missing or bad; two daemons never write."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.conftest import EXAMPLE, ROOT, Server, make_project
from tests.support.watching import Watched, make_watched, until

NOWHERE = Server("127.0.0.1", 1, "nobody", "nothing")
"""The spec's server, which nobody asks here."""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """The example's files, fed from an empty folder; whatever still runs at the end is stopped."""
    project = make_project(tmp_path / "project", NOWHERE, "none", EXAMPLE / "archive")
    made = make_watched(project, tmp_path / "control")
    yield made
    made.end()


def all_in(watched: Watched) -> bool:
    return watched.wanted().items() <= watched.in_files().items()


def test_new_changed_and_moved_files_are_seen_by_themselves(watched: Watched) -> None:
    """A new file is in within seconds, a changed one replaces it, a moved one is not ingested again."""
    with watched.daemon():
        until(lambda: watched.events("started"), why=watched.log)
        watched.put("one.md", "first")
        took = until(lambda: all_in(watched), why=watched.log)
        watched.put("below/two.md", "second")
        watched.put("no.rst", "not asked for")
        watched.put(".hidden.md", "not asked for")
        until(
            lambda: (watched.wanted() | {}).keys() - {".hidden.md"} <= watched.in_files().keys(),
            why=watched.log,
        )
        watched.put("one.md", "first, changed")
        until(lambda: watched.in_files()["one.md"] == watched.wanted()["one.md"], why=watched.log)
        (watched.source / "below" / "two.md").rename(watched.source / "three.md")
        watched.put("last.md", "the end")
        until(lambda: "last.md" in watched.in_files(), why=watched.log)
    assert sorted(line.split()[0] for line in watched.went_in()) == [
        "below/two.md",
        "last.md",
        "one.md",
        "one.md",
    ]
    assert took < 10  # by events, not by the interval of 300 s


@pytest.mark.slow
def test_start_status_stop(watched: Watched) -> None:
    """Commands say what they did, and that there was nothing to do; status tells it to machines."""
    watched.put("one.md", "first")
    assert "not watched" in watched.ok("watch", "stop", "notes")
    assert watched.status()["state"] == "never started"
    assert 'watching "notes"' in watched.ok("watch", "start", "notes")
    assert "already" in watched.ok("watch", "start", "notes")
    until(lambda: all_in(watched), why=watched.log)
    until(lambda: watched.status()["state"] == "idle", why=watched.log)
    schema = json.loads((ROOT / "schemas" / "watch-status.schema.json").read_text("utf-8"))
    jsonschema.Draft7Validator(schema).validate(json.loads(watched.ok("watch", "status", "--json")))
    found = watched.status()
    assert (found["running"], found["backend"], found["ingested"], found["failed"]) == (True, "files", 1, 0)
    assert "watcher idle" in watched.ok("status")
    refused = watched.run("watch", "run", "notes")
    assert refused.returncode == 9
    assert "another daemon watches this database" in refused.stderr
    assert "not watched any more" in watched.ok("watch", "stop", "notes")
    assert watched.status()["state"] == "stopped"
    assert watched.writers() == []


def test_lightrags_process_is_lost_again_and_again(watched: Watched) -> None:
    """A killed process is started again, by waiting longer each time; nothing is lost or in twice, no restart."""
    with watched.daemon() as process:
        for number in range(12):
            watched.put(f"{number}.md", f"text {number}, sleep 0.2")
        for _ in range(3):
            until(watched.writers, why=watched.log)
            time.sleep(0.5)
            for pid in watched.writers():
                os.kill(pid, signal.SIGKILL)
        until(lambda: all_in(watched), why=watched.log)
        assert process.poll() is None
    assert watched.events("lost")
    assert watched.events("recovered")


def test_a_server_that_is_down_is_waited_for(watched: Watched) -> None:
    """The state says why, the log warns, and it recovers by itself."""
    (watched.control / "down").touch()
    watched.put("one.md", "first")
    with watched.daemon():
        until(lambda: watched.is_in("waiting"), why=watched.log)
        assert watched.look().activity.last_error == "the server is down"
        assert {line["level"] for line in watched.events("lost")} == {"warning"}
        (watched.control / "down").unlink()
        until(lambda: all_in(watched), why=watched.log)
        until(lambda: watched.is_in("idle"))
        assert watched.look().activity.last_error is None


@pytest.mark.slow
def test_a_bad_document_does_not_keep_the_others(watched: Watched) -> None:
    """One that kills LightRAG each time, one that is refused, one that is no text: told, and everything else is in."""
    watched.put("dies.md", "die")
    watched.put("fails.md", "fail")
    (watched.source / "latin.md").write_bytes("Müller".encode("latin-1"))
    good = {f"{number}.md": watched.put(f"{number}.md", f"text {number}") for number in range(6)}
    with watched.daemon():
        until(lambda: good.items() <= watched.in_files().items(), within=60, why=watched.log)
        until(lambda: watched.look().activity.failed == 3, within=60, why=watched.log)
    assert [line["reason"] for line in watched.events("unusable")] == ["it is not UTF-8 (byte 1)"]
    assert {line["document"] for line in watched.events("failed")} == {"dies.md", "fails.md"}
    assert "Müller" not in watched.log()


@pytest.mark.slow
def test_sigterm_ends_after_the_document_in_hand_and_twice_at_once(watched: Watched) -> None:
    """Exit 0 both times; what was cut off goes in the next time."""
    with watched.daemon() as process:
        watched.put("one.md", "sleep 3")
        until(lambda: watched.is_in("ingesting"), why=watched.log)
        process.terminate()
        assert process.wait(30) == 0
    assert all_in(watched)
    with watched.daemon() as process:
        until(lambda: watched.is_in("idle"))
        watched.put("two.md", "sleep 60")
        until(lambda: watched.is_in("ingesting"), why=watched.log)
        watched.ok("watch", "stop", "notes", "--now")
        assert process.wait(30) == 0
    assert not all_in(watched)
    assert watched.writers() == []


def test_a_big_file_is_warned_about_once_and_again_when_it_grew(watched: Watched) -> None:
    """With file, size and the command; status forecasts nothing from one moment."""
    spec = watched.project.folder / "hybridrag.yaml"
    text = spec.read_text("utf-8")
    spec.write_text(text + "defaults: {thresholds: {file_size: 10MB, total_size: 1GB}}\n", encoding="utf-8")
    big = watched.project.data / "kv_store_llm_response_cache.json"
    os.truncate(big, 20_000_000)
    with watched.daemon():
        for size, expected in ((20_000_000, 1), (21_000_000, 1), (23_000_000, 2)):
            os.truncate(big, size)
            name = f"{size}.md"
            watched.put(name, name)
            until(lambda name=name: name in watched.in_files(), why=watched.log)
            until(lambda expected=expected: len(watched.events("size")) >= expected, why=watched.log)
            time.sleep(0.5)
            assert len(watched.events("size")) == expected
    first = watched.events("size")[0]
    assert (first["level"], first["file"], first["bytes"]) == ("warning", big.name, 20_000_000)
    assert first["command"] == "hybridrag migrate notes --to pg"
    (warning,) = watched.status()["warnings"]
    assert warning.endswith(first["command"])


def test_who_only_looks_leaves_no_trace(watched: Watched) -> None:
    """`watch status` creates nothing; wrong names and databases without a watcher are told with an exit code."""
    before = sorted(str(path) for path in watched.project.folder.rglob("*"))
    watched.ok("watch", "status")
    watched.ok("status")
    assert watched.run("watch", "status", "nope").returncode == 6
    assert sorted(str(path) for path in watched.project.folder.rglob("*")) == before
    spec = watched.project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["databases"]["notes"]["writer"] = {"kind": "none"}
    spec.write_text(yaml.safe_dump(wanted), encoding="utf-8")
    refused = watched.run("watch", "start", "notes")
    assert refused.returncode == 3, refused.stderr
    assert "is not fed by a watcher" in refused.stderr


@pytest.mark.long
def test_killed_at_any_moment_nothing_is_lost_or_in_twice(watched: Watched) -> None:
    """SIGKILL of the daemon at ten moments while files come and change."""
    moments = random.Random(5)
    for turn in range(10):
        for number in range(4):
            watched.put(f"{moments.randrange(20)}.md", f"text {turn} {number}, sleep 0.1")
        with watched.daemon():
            time.sleep(moments.uniform(0.5, 4))
    with watched.daemon():
        until(lambda: all_in(watched), within=60, why=watched.log)
    assert watched.in_files() == watched.wanted()


def test_a_broken_spec_stops_nobody_and_a_broken_registry_everything(watched: Watched) -> None:
    """A slip in the spec: the old one holds, one error. A registry nobody understands: nothing is written until it is mended."""
    spec, registry = watched.project.folder / "hybridrag.yaml", watched.state.parents[1] / "registry.yaml"
    with watched.daemon():
        until(lambda: watched.is_in("idle"), why=watched.log)
        good = spec.read_text("utf-8")
        spec.write_text("databases: [", encoding="utf-8")
        watched.put("one.md", "first")
        until(lambda: all_in(watched), why=watched.log)
        (told,) = watched.events("spec")
        assert told["level"] == "error"
        spec.write_text(good, encoding="utf-8")
        registry.write_text("databases: [", encoding="utf-8")
        until(lambda: watched.is_in("waiting"), why=watched.log)
        assert "registry" in watched.look().activity.last_error
        watched.put("two.md", "second")
        time.sleep(2)
        assert (list(watched.in_files()), watched.writers()) == (["one.md"], [])
        registry.unlink()
        until(lambda: all_in(watched), why=watched.log)


def test_what_only_a_change_can_mend_waits_for_one(watched: Watched) -> None:
    """The ingester refuses the spec: an error, no storm of attempts; touching the spec is enough to try again."""
    (watched.control / "spec").write_text("models.llm.api_key: no such variable", encoding="utf-8")
    watched.put("one.md", "first")
    with watched.daemon():
        until(lambda: watched.is_in("waiting"), why=watched.log)
        time.sleep(2)
        assert [line["level"] for line in watched.events("stuck")] == ["error"]
        (watched.control / "spec").unlink()
        time.sleep(1)
        assert not all_in(watched)
        (watched.project.folder / "hybridrag.yaml").touch()
        until(lambda: all_in(watched), why=watched.log)


def test_a_source_that_comes_and_goes(watched: Watched) -> None:
    """A folder that is not there is waited for; what went away stays in the database."""
    watched.source.rmdir()
    with watched.daemon():
        until(lambda: watched.is_in("idle"), why=watched.log)
        assert len(watched.events("no_source")) == 1
        watched.source.mkdir()
        watched.put("one.md", "first")
        until(lambda: all_in(watched), why=watched.log)
        (watched.source / "one.md").unlink()
        watched.source.rmdir()
        until(lambda: len(watched.events("no_source")) == 2, why=watched.log)
        watched.source.mkdir()
        watched.put("two.md", "second")
        until(lambda: all_in(watched), why=watched.log)
    assert set(watched.in_files()) == {"one.md", "two.md"}
