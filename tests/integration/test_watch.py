"""`hybridrag watch`: files go in once, whatever is killed; a pause holds; two daemons never write."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.conftest import EXAMPLE, ROOT, Project, Server, make_project
from tests.support.target import run_sql
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


@contextlib.contextmanager
def until_idle(watched: Watched) -> Iterator[None]:
    until(lambda: watched.is_in("idle"), why=watched.log)
    yield


RECONCILER = """
import asyncio, pathlib, sys
from hybridrag.watch.halter import WatcherHalter
from hybridrag.errors import PlanRefused

async def main():
    halter = WatcherHalter("notes", pathlib.Path(sys.argv[1]), drain_s=20, ttl_s=float(sys.argv[2]))
    print(await halter.pause(), flush=True)
    for line in sys.stdin:
        try:
            with halter.sealed():
                pass
            print("sealed", flush=True)
        except PlanRefused as error:
            print("refused:", error, flush=True)

asyncio.run(main())
"""


@contextlib.contextmanager
def reconciler(watched: Watched, *, ttl_s: float) -> Iterator[subprocess.Popen[str]]:
    """A process that paused the watcher as an apply does, and tries to switch for every line it is given."""
    argv = [sys.executable, "-c", RECONCILER, str(watched.state), str(ttl_s)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process)


@pytest.mark.slow
def test_a_pause_by_hand_outlives_the_daemon(watched: Watched) -> None:
    """Nothing is written until it is lifted, by no daemon; then it goes on by itself."""
    with watched.daemon() as process:
        watched.put("one.md", "first")
        until(lambda: all_in(watched), why=watched.log)
        assert "is paused" in watched.ok("watch", "pause", "notes")
        assert watched.writers() == []
        assert "already" in watched.ok("watch", "pause", "notes")
        watched.put("two.md", "second")
        process.kill()
    with watched.daemon():
        until(lambda: watched.is_in("paused"), why=watched.log)
        time.sleep(2)
        assert (watched.writers(), list(watched.in_files())) == ([], ["one.md"])
        assert "may be written again" in watched.ok("watch", "resume", "notes")
        until(lambda: all_in(watched), why=watched.log)


def test_without_a_daemon_a_pause_holds_at_once_for_the_next_one(watched: Watched) -> None:
    """Nobody runs, so nothing is written; a daemon that starts meanwhile finds the pause."""
    watched.put("one.md", "first")
    with reconciler(watched, ttl_s=30) as process:
        assert answer(process) == "no watcher runs, and none begins to write"
        with watched.daemon():
            until(lambda: watched.is_in("paused"), why=watched.log)
            assert ask(process) == "sealed"
            assert (watched.writers(), watched.went_in()) == ([], [])
            process.kill()
            until(lambda: all_in(watched), why=watched.log)


def test_the_document_in_hand_is_ended_before_a_pause_counts(watched: Watched) -> None:
    """Acknowledged means drained: no process is there, the document in hand is in, the next one is not."""
    with watched.daemon():
        watched.put("one.md", "sleep 4")
        until(lambda: watched.is_in("ingesting") and watched.writers())
        with reconciler(watched, ttl_s=30) as process:
            watched.put("two.md", "second")
            assert "drained in" in answer(process)
            assert (watched.writers(), list(watched.in_files())) == ([], ["one.md"])
            assert watched.look().acknowledged
            process.kill()
        until(lambda: all_in(watched), why=watched.log)
        assert watched.events("paused")
        assert watched.events("resumed")


def test_a_run_that_slept_longer_than_its_pause_does_not_switch(watched: Watched) -> None:
    """Stopped, its pause lapses and the daemon goes on; awake again it is refused, and changes nothing."""
    with watched.daemon(), until_idle(watched), reconciler(watched, ttl_s=2) as process:
        assert "drained" in answer(process)
        time.sleep(3)  # kept fresh
        assert ask(process) == "sealed"
        process.send_signal(signal.SIGSTOP)
        watched.put("one.md", "first")
        until(lambda: all_in(watched), why=watched.log)
        process.send_signal(signal.SIGCONT)
        assert "ran out before the switch" in ask(process)


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


@pytest.mark.slow
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


@pytest.fixture
def moving(project: Project, tmp_path: Path) -> Iterator[Watched]:
    """A watched database in files that is wanted on the run's server; the daemon was started before that was so."""
    made = make_watched(project, tmp_path / "control")
    yield made
    made.end()


def on_server(watched: Watched) -> dict[str, str]:
    assert watched.project.dsn
    rows = run_sql(
        watched.project.dsn,
        "SELECT file_path, content_hash FROM lightrag_doc_status WHERE length(content_hash) = 64",
    )
    assert len(dict(rows)) == len(rows), "a document stands there twice"
    return dict(rows)


def test_moved_while_it_ingests(moving: Watched) -> None:
    """Every file is in exactly once, whatever side of the switch it came on; the daemon is on Postgres by itself."""
    with moving.daemon():
        for number in range(40):
            moving.put(f"{number}.md", f"text {number}, sleep 0.15")
        until(lambda: len(moving.went_in()) > 2, why=moving.log)
        spec = moving.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("backend: files", "backend: pg"), encoding="utf-8")
        moving.ok("apply", "--auto-approve")
        at_switch = len(moving.in_files())
        moving.put("after.md", "after the switch")
        until(lambda: moving.wanted().items() <= on_server(moving).items(), within=60, why=moving.log)
        until(lambda: moving.is_in("idle"))
        assert moving.look().activity.backend == "pg"
    assert on_server(moving) == moving.wanted()
    assert len(moving.went_in()) == len(set(moving.went_in())) == 41
    assert 0 < at_switch == len(moving.in_files()), "the files were written after the switch"
    assert not moving.events("size")


@pytest.mark.slow
def test_the_apply_is_killed_at_any_moment_while_it_ingests(moving: Watched) -> None:
    """SIGKILL of the reconciler: the daemon goes on by itself, and after the last apply everything is there once."""
    moments = random.Random(6)
    with moving.daemon():
        until(lambda: moving.is_in("idle"), why=moving.log)
        spec = moving.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("backend: files", "backend: pg"), encoding="utf-8")
        for turn in range(8):
            for number in range(5):
                moving.put(f"{turn}-{number}.md", f"text {turn} {number}, sleep 0.2")
            argv = [sys.executable, "-m", "hybridrag", "apply", "--auto-approve", "--quiet"]
            with subprocess.Popen(argv, cwd=moving.project.folder, env=moving.environ) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=moments.uniform(1, 9))
                process.kill()
            moving.put(f"{turn}-last.md", f"last {turn}")
        moving.ok("apply", "--auto-approve")
        until(lambda: moving.wanted().items() <= on_server(moving).items(), within=90, why=moving.log)
    assert on_server(moving) == moving.wanted()
    assert len(moving.went_in()) == len(set(moving.went_in()))


@pytest.mark.slow
def test_a_kill_between_the_marks_and_the_registry_and_the_daemon_goes_on(moving: Watched) -> None:
    """Postgres was already marked as what serves, the files still serve and are written; the next apply moves that, too."""
    moving.put("before.md", "before")
    with moving.daemon():
        until(lambda: all_in(moving), why=moving.log)
        spec = moving.project.folder / "hybridrag.yaml"
        spec.write_text(spec.read_text("utf-8").replace("backend: files", "backend: pg"), encoding="utf-8")
        moving.put("during.md", "during")
        killed = moving.project.run(
            "apply", "--auto-approve", **moving.variables, HYBRIDRAG_FAILPOINTS="switch.marked=kill"
        )
        assert killed.returncode == -9
        moving.put("after.md", "after")
        until(lambda: "after.md" in moving.in_files(), within=90, why=moving.log)
        moving.ok("apply", "--auto-approve")
        moving.put("last.md", "last")
        until(lambda: moving.wanted().items() <= on_server(moving).items(), within=60, why=moving.log)
    assert on_server(moving) == moving.wanted()
    assert "last.md" not in moving.in_files()
