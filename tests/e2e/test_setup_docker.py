"""`hybridrag backend setup-docker`, from an empty folder to a served database, against a real engine."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hybridrag.backends.postgres.embedded_place import free_port
from tests.conftest import EXAMPLE, Project, clean_environment, digests
from tests.support.docker.case import Case

CANARY = "p@cAn4ry0wl:/?#% 'x' y"


@pytest.fixture
def folder(case: Case) -> Project:
    """A spec whose containers bear the case's name, so that they are cleared away."""
    case.folder.mkdir()
    shutil.copytree(EXAMPLE / "archive", case.folder / "notes")
    project = Project(case.folder, case.folder / "notes", None)
    project.ok("init")
    spec = case.folder / "hybridrag.yaml"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("environment: dev ", f"environment: {case.name[10:]} "), encoding="utf-8")
    return project


def test_from_nothing_to_a_served_database(case: Case, folder: Project) -> None:
    """A dry run makes nothing; the command makes server and entry; twice is once; the next step is one command."""
    before = digests(folder.folder)
    port = str(free_port())
    name = f"{case.name}-pg"
    assert f'create and start the Postgres container "{name}"' in folder.ok(
        "backend", "setup-docker", "--port", port, "--dry-run"
    )
    assert digests(folder.folder) == before
    assert not case.exists()

    told = json.loads(folder.ok("backend", "setup-docker", "--port", port, "--json"))
    assert told == {
        "container_name": name,
        "image": case.image,
        "port": int(port),
        "volume": f"{name}-data",
        "connection_string": f"postgresql://hybridrag:***@127.0.0.1:{port}/hybridrag",
        "status": "running",
    }
    spec = (folder.folder / "hybridrag.yaml").read_text()
    started = case.inspect(name)["State"]["StartedAt"]
    assert json.loads(folder.ok("backend", "setup-docker", "--json")) == told
    assert (folder.folder / "hybridrag.yaml").read_text() == spec
    assert case.inspect(name)["State"]["StartedAt"] == started

    folder.ok("db", "create", "notes", "--path", "notes", "--embedding-model", "hash-emb")
    assert json.loads(folder.ok("migrate", "notes", "--to", "postgres", "--json"))["records_migrated"] == 527
    assert "No changes" in folder.ok("plan")

    done = folder.run("backend", "setup-docker", "--port", str(free_port()))
    assert (done.returncode, f"has port {port}" in done.stderr) == (3, True)
    before = digests(folder.folder)
    done = folder.run("backend", "setup-docker", "--name", "second", "--port", port)
    assert (done.returncode, "is taken by" in done.stderr) == (2, True)
    assert digests(folder.folder) == before


@pytest.mark.slow
def test_a_given_password_is_kept_in_a_private_file(case: Case, folder: Project) -> None:
    """Read from stdin it stands in no argument list, spec, journal or output; the server takes it."""
    argv = ["backend", "setup-docker", "--port", str(free_port()), "--password", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "hybridrag", *argv],
        cwd=folder.folder,
        env=clean_environment(),
        input=CANARY + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = next(folder.folder.glob("state/*/secrets/*"))
    assert (stat.S_IMODE(kept.stat().st_mode), kept.read_text()) == (0o600, CANARY + "\n")
    assert "cAn4ry0wl" not in done.stdout + done.stderr
    for path in folder.folder.rglob("*"):
        assert path.is_dir() or path == kept or b"cAn4ry0wl" not in path.read_bytes()
    assert "pg       healthy" in folder.ok("health")


def test_without_an_engine(tmp_path: Path) -> None:
    """Exit 1, in words, and nothing written."""
    project = Project(tmp_path, tmp_path, None)
    done = project.run("backend", "setup-docker", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert "Docker" in done.stderr
    assert not list(tmp_path.iterdir())
