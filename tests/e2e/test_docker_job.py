"""The main job with Postgres in Docker, from a shell: from JSON files and no database to a served one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.conftest import DIM, EXAMPLE, Project, digests
from tests.support.docker.case import Case

CANARY = "p@cAn4ry0wl:/?#% 'x' y"
SPEC = """\
version: 1
environment: test
backends:
  files: {{type: json}}
  pg:
    type: postgres
    provision: {{driver: docker, container: {name}, volume: {name}-data}}
    password: {{file: ./secret}}
databases:
  notes:
    path: ./notes
    backend: pg
    embedding: {{model: hash-emb, dim: {dim}, function: "embedding.py:embed"}}
"""


@pytest.fixture
def docker_project(case: Case) -> Project:
    folder = case.folder
    folder.mkdir()
    shutil.copytree(EXAMPLE / "archive", folder / "notes")
    shutil.copy(EXAMPLE / "embedding.py", folder)
    (folder / "hybridrag.yaml").write_text(SPEC.format(name=case.name, dim=DIM), encoding="utf-8")
    (folder / "secret").write_text(CANARY + "\n", encoding="utf-8")
    return Project(folder, folder / "notes", None)


@pytest.mark.slow
def test_from_json_files_to_postgres_in_docker(case: Case, docker_project: Project) -> None:
    """Planning makes nothing; applying makes all; twice is once; a change is planned and made; no secret shows."""
    project = docker_project
    before = digests(project.folder)
    outputs = [project.ok("plan")]
    assert f'create and start the Postgres container "{case.name}"' in outputs[0]
    assert digests(project.folder) == before
    assert not case.exists()

    started = time.monotonic()
    outputs.append(project.ok("apply", "--auto-approve"))
    print(f"from JSON files and no database to a served one: {time.monotonic() - started:.1f} s")
    assert "0 missing, 0 extra, 0 different" in outputs[-1]
    outputs.append(project.ok("apply", "--auto-approve"))
    assert "No changes" in outputs[-1]
    assert "equal" in project.ok("verify", "notes")
    assert digests(project.data) == digests(EXAMPLE / "archive")

    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("driver: docker,", "driver: docker, memory: 2g,"), encoding="utf-8")
    outputs.append(project.ok("plan"))
    assert "because memory: 4g → 2g" in outputs[-1]
    spec.write_text(text.replace("driver: docker,", "driver: docker, shm_size: 300m,"), encoding="utf-8")
    outputs.append(project.ok("plan", "--out", "move.plan"))
    assert "replace the Postgres container" in outputs[-1]
    assert "! restart" in outputs[-1]
    outputs.append(project.ok("apply", "move.plan"))
    assert "No changes" in project.ok("plan")
    assert "equal" in project.ok("verify", "notes")

    project.ok("backend", "stop", "pg")
    outputs.append(project.ok("plan"))
    assert "is stopped" in outputs[-1]
    project.ok("backend", "start", "pg")
    outputs += [project.ok("status"), project.ok("status", "--json"), project.ok("health", "--json")]
    assert "pg postgres (docker)" in outputs[-3]

    outputs += [case.docker("inspect", case.name), case.docker("logs", case.name)]
    assert "cAn4ry0wl" not in "".join(outputs)
    for path in (project.folder / "state").rglob("*"):
        assert path.is_dir() or b"cAn4ry0wl" not in path.read_bytes()


@pytest.mark.slow
def test_another_volume_needs_consent(case: Case, docker_project: Project) -> None:
    """Data that would no longer be served is not left behind by a slip of the pen."""
    project = docker_project
    project.ok("apply", "--auto-approve")
    spec = project.folder / "hybridrag.yaml"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace(f"{case.name}-data", f"{case.name}-other"), encoding="utf-8")
    assert "! other_data" in project.ok("plan")
    done = project.run("apply", "--auto-approve")
    assert done.returncode == 5
    assert "--allow other_data" in done.stderr
    spec.write_text(text, encoding="utf-8")
    assert "No changes" in project.ok("plan")


def test_without_an_engine(case: Case, docker_project: Project, tmp_path: Path) -> None:
    """Exit 4, in words, from plan already."""
    done = docker_project.run("plan", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 4
    assert "its engine does not run" in done.stderr
    assert "Traceback" not in done.stderr
