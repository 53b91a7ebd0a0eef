"""A container that writes a database: stopped, its mounted `.env` rewritten, started; see `tests.support.docker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Project
from tests.support.docker.case import Case

# Comes up only where its .env suits it, as a server does whose database it cannot reach.
SERVE = (
    "trap 'exit 0' TERM; if grep -q PGKV /app/.env && [ -e /app/site/only_files ]; then "
    "echo no route to host >&2; exit 3; fi; while :; do sleep 0.1; done"
)


@pytest.fixture
def container(project: Project, case: Case) -> Iterator[Case]:
    (project.folder / "server.env").write_text("# mine\nWORKING_DIR=/data\nWORKSPACE=notes\n")
    (project.folder / "site").mkdir()
    yield case
    case.docker("rm", "-f", case.name, check=False)


def run(project: Project, case: Case, *options: str) -> None:
    mounts = {"server.env": "/app/.env", "site": "/app/site", "notes": "/data/notes"}
    case.by_hand(
        *(f"--volume={project.folder / here}:{there}" for here, there in mounts.items()),
        "--workdir=/app", "--restart=always", "--entrypoint=sh", *options, case.image, "-c", SERVE,
    )  # fmt: skip


def declare(project: Project, case: Case, **more: Any) -> None:
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["databases"]["notes"]["writer"] = {
        "kind": "docker", "container": case.name, "env_file": "server.env", "timeout": 10, **more,
    }  # fmt: skip
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")


def inside(case: Case) -> str:
    return case.docker("exec", case.name, "cat", "/app/.env")


def told(project: Project, *argv: str) -> str:
    refused = project.run(*argv)
    assert refused.returncode == 5, refused.stderr
    return " ".join(refused.stderr.split())


@pytest.mark.slow
def test_stopped_moved_and_started(project: Project, container: Case) -> None:
    """Its restart policy does not bring it back, and stays; it sees the new file; and back to the files as they were."""
    run(project, container)
    declare(project, container)
    before = (project.folder / "server.env").read_text()
    assert f'stop the container "{container.name}"' in " ".join(project.ok("plan").split())
    started = container.inspect()["State"]["StartedAt"]
    project.ok("apply", "--auto-approve")
    seen = container.inspect()
    assert seen["State"]["Running"]
    assert seen["State"]["StartedAt"] > started
    assert seen["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert "LIGHTRAG_KV_STORAGE=PGKVStorage" in inside(container)
    project.ok("rollback", "notes")
    assert (project.folder / "server.env").read_text() == before
    assert inside(container) == before.rstrip("\n")


@pytest.mark.slow
def test_put_back_when_it_does_not_stay_up(project: Project, container: Case) -> None:
    run(project, container)
    declare(project, container)
    before = (project.folder / "server.env").read_text()
    (project.folder / "site" / "only_files").touch()
    said = told(project, "apply", "--auto-approve")
    assert "does not stay up" in said
    assert "no route to host" in said
    assert '"notes" is served by backend "files" again' in said
    assert (project.folder / "server.env").read_text() == before
    assert container.inspect()["State"]["Running"]
    (project.folder / "site" / "only_files").unlink()
    assert "already copied" in " ".join(project.ok("apply", "--auto-approve").split())
    assert "PGKVStorage" in inside(container)


@pytest.mark.slow
def test_what_is_refused(project: Project, container: Case) -> None:
    """No such container; one that removes itself; one whose own variables win over its .env."""
    declare(project, container)
    assert "there is no container" in told(project, "apply", "--auto-approve")
    run(project, container, "--restart=no", "--rm")
    assert "would be removed when it stops" in told(project, "apply", "--auto-approve")
    assert container.inspect()["State"]["Running"]
    container.docker("rm", "-f", container.name)
    run(project, container, "--env=LIGHTRAG_KV_STORAGE=JsonKVStorage")
    said = told(project, "apply", "--auto-approve")
    assert "was made with LIGHTRAG_KV_STORAGE=JsonKVStorage" in said
    assert '"notes" is served by backend "files" again' in said
    assert container.inspect()["State"]["Running"]
    assert Path(project.folder / "server.env").read_text().startswith("# mine")
