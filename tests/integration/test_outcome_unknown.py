"""A connection that is cut at a COMMIT hides whether it happened: the run finds out, says so, and is right either way."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Project, Server
from tests.e2e.test_directions import EQUAL, registry
from tests.support.cutting_proxy import Cutting, cutting_proxy
from tests.support.target import content


def through(project: Project, port: int) -> None:
    spec = project.folder / "hybridrag.yaml"
    spec.write_text(re.sub(r"port: \d+", f"port: {port}", spec.read_text("utf-8")), encoding="utf-8")


def bound(value: str) -> bytes:
    """A value as the protocol sends it beside a statement."""
    return len(value).to_bytes(4, "big") + value.encode()


@pytest.mark.parametrize("state", ["verified", "switched"])
def test_a_mark_whose_answer_was_lost_is_read_back(project: Project, server: Server, state: str) -> None:
    """It happened: the run says that it asked again, and goes on."""
    with cutting_proxy(server.host, server.port, Cutting(bound(state), before=False)) as proxy:
        through(project, proxy.port)
        told = project.ok("apply", "--auto-approve")
        assert proxy.done
        assert f"the connection was lost while the copy was marked as {state}; asked again" in " ".join(
            told.split()
        )
        assert registry(project)["backend"] == "pg"
        assert "No changes" in project.ok("plan")
        assert EQUAL in project.ok("verify", "notes")


@pytest.mark.parametrize("state", ["verified", "switched"])
def test_a_mark_that_never_arrived_is_told_as_such(project: Project, server: Server, state: str) -> None:
    """It did not happen: exit 4 with words, nothing is switched, and the next apply goes on."""
    with cutting_proxy(server.host, server.port, Cutting(bound(state), before=True)) as proxy:
        through(project, proxy.port)
        done = project.run("apply", "--auto-approve")
        assert done.returncode == 4, done.stdout + done.stderr
        assert f"was not marked as {state} (it was asked again)" in " ".join(done.stderr.split())
        assert not (project.folder / "state" / "test" / "registry.yaml").exists()
        project.ok("apply", "--auto-approve")
        assert EQUAL in project.ok("verify", "notes")


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before", "answer"])
def test_nobody_can_say_and_the_run_says_that(project: Project, server: Server, before: bool) -> None:
    """The server is away from the cut on: exit 4, the outcome is called unknown, and the next apply finds out."""
    cut = Cutting(bound("switched"), before=before, refuse=True)
    with cutting_proxy(server.host, server.port, cut) as proxy:
        through(project, proxy.port)
        done = project.run("apply", "--auto-approve")
        assert done.returncode == 4
        assert "was marked as switched is not known" in " ".join(done.stderr.split())
        cut.refuse = False
        project.ok("apply", "--auto-approve")
        assert registry(project)["backend"] == "pg"
        assert EQUAL in project.ok("verify", "notes")


@pytest.mark.parametrize("before", [True, False], ids=["before", "answer"])
@pytest.mark.parametrize("word", [b"COPY ", b"'copying', $5"], ids=["batch", "begin"])
def test_a_batch_and_the_beginning(project: Project, server: Server, word: bytes, before: bool) -> None:
    """The run ends with 4 and says what is committed; the next one goes on from there and copies nothing twice."""
    with cutting_proxy(server.host, server.port, Cutting(word, before=before)) as proxy:
        through(project, proxy.port)
        done = project.run("apply", "--auto-approve")
        assert done.returncode == 4, done.stdout + done.stderr
        told = " ".join(done.stdout.split())
        committed = re.search(r"was asked again: (\d+) records of the copy are committed there", told)
        if word == b"COPY ":
            assert committed
        again = project.ok("apply", "--auto-approve")
        if committed and int(committed[1]):
            assert f"resuming: {committed[1]} of 527 records were committed before" in again
        assert EQUAL in again
        assert content(project.dsn or "", "notes")["checkpoints"]
