"""Commands that cannot be carried out: names of nothing, nobody to ask, a server that is down; nothing is changed."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import json
import shutil

import pytest

from hybridrag.backends.postgres.embedded_place import free_port
from tests.conftest import Project, Server, digests
from tests.support.spoiling import spec
from tests.support.target import relations
from tests.support.untouched import assert_refused, empty, untouched  # noqa: F401

ARGUMENTS = {
    "status of nobody": (("status", "nope"), 6, ('database "nope"', "notes")),
    "verify of nobody": (("verify", "nope"), 6, ('database "nope"', "notes")),
    "query of nobody": (("query", "nope", "text", "--context-only"), 6, ('database "nope"', "notes")),
    "plan for nobody": (("plan", "--target", "nope"), 6, ('database "nope"', "notes")),
    "apply without nobody": (("apply", "--auto-approve", "--exclude", "nope"), 6, ('database "nope"', "notes")),
    "start of no backend": (("backend", "start", "nope"), 6, ('backend "nope"', "files, pg")),
    "stop of no backend": (("backend", "stop", "nope"), 6, ('backend "nope"', "files, pg")),
    "start of somebody else's server": (("backend", "start", "pg"), 4, ("external server", "its own tools")),
    "no spec": (("plan", "-f", "nope.yaml"), 6, ("nope.yaml",)),
    "events nowhere": (
        ("apply", "--auto-approve", "--events", "nope/x"),
        6,
        ("nope/x", "another --events FILE"),
    ),
    "plan saved nowhere": (("plan", "--out", "nope/x"), 6, ("nope/x", "another --out FILE")),
    "no overlay": (("plan", "--env", "nope"), 6, ("hybridrag.nope.yaml",)),
    "verify before the copy": (("verify", "notes"), 6, ("does not hold", "hybridrag apply")),
}  # fmt: skip


@pytest.mark.parametrize(("argv", "code", "says"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_an_unknown_name_is_not_found(
    untouched: Project, argv: tuple[str, ...], code: int, says: tuple[str, ...]
) -> None:
    """A name that is not there is said back, with those that are."""
    before = digests(untouched.folder)
    assert_refused(untouched.run(*argv), code, *says)
    assert digests(untouched.folder) == before


def test_nobody_is_asked_where_nobody_can_answer(untouched: Project, server: Server, empty: str) -> None:
    """Without a terminal `apply` wants `--auto-approve` or a saved plan, and does nothing."""
    there, before = relations(server.dsn(empty)), digests(untouched.folder)
    says = "needs an approval", "hybridrag apply --auto-approve", "hybridrag plan --out FILE"
    assert_refused(untouched.run("apply"), 5, *says)
    assert relations(server.dsn(empty)) == there
    assert digests(untouched.folder) == before


def test_errors_are_json_where_json_is_asked_for(untouched: Project) -> None:
    """`--json` gives code, message and next command as one object on stderr, and nothing else there."""
    shutil.rmtree(untouched.data)
    done = untouched.run("apply", "--auto-approve", "--json")
    assert done.returncode == 6
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "not_found"
    assert "does not exist" in error["message"]
    assert "databases.notes.path" in error["next"]


def test_looking_works_while_the_server_is_down(untouched: Project) -> None:
    """`status` tells the rest and the reason; `health` and `verify` say it by their exit code."""
    spec("port: ", f"port: {free_port()} #")(untouched)
    before = digests(untouched.folder)
    assert "connection refused" in untouched.ok("status")
    health = untouched.run("health")
    assert health.returncode == 4
    assert "connection refused" in health.stdout
    assert_refused(untouched.run("verify", "notes"), 4, "connection refused")
    assert digests(untouched.folder) == before
