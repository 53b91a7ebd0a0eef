"""Writers that commands and systemd stop and start: what is asked when, what is refused, and the way back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Project

SYSTEMCTL = """\
#!{python}
# Stands in for systemd, which runs as process 1 only: units are files that hold their state.
import pathlib, sys
argv = [each for each in sys.argv[1:] if each != "--user"]
verb, unit = argv[0], pathlib.Path({units!r}) / argv[-1]
with (unit.parent / "log").open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if not unit.exists():
    print("inactive" if verb == "is-active" else f"Failed to {{verb}} {{unit.name}}: Unit {{unit.name}} not loaded.")
    sys.exit(5)
if verb == "is-active":
    print(unit.read_text())
    sys.exit(unit.read_text() != "active")
env = pathlib.Path({env!r}).read_text()
if verb == "stop":
    unit.write_text("active" if (unit.parent / "held").exists() else "inactive")
else:
    unit.write_text("failed" if (unit.parent / "only_files").exists() and "PGKV" in env else "active")
"""


def declare(project: Project, **writer: Any) -> None:
    spec = project.folder / "hybridrag.yaml"
    wanted = yaml.safe_load(spec.read_text("utf-8"))
    wanted["databases"]["notes"]["writer"] = writer
    spec.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")


@pytest.fixture
def env_file(project: Project) -> Path:
    path = project.folder / "server.env"
    path.write_text("# mine\nWORKING_DIR=.\nWORKSPACE=notes\n", encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def units(project: Project, env_file: Path) -> Path:
    folder = project.folder / "units"
    folder.mkdir()
    program = folder / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(python=sys.executable, units=str(folder), env=str(env_file)))
    program.chmod(0o755)
    (folder / "lightrag.service").write_text("active")
    return folder


def path_with(units: Path) -> str:
    import os

    return f"{units / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.slow
def test_a_unit_is_stopped_and_started_on_what_serves(project: Project, units: Path, env_file: Path) -> None:
    """There and back; the unit's file is ours only where the backend is not the files."""
    before = env_file.read_text("utf-8")
    declare(project, kind="systemd", unit="lightrag.service", user=True, env_file="server.env")
    assert 'stop the unit "lightrag.service"' in project.ok("plan", PATH=path_with(units))
    assert 'the unit "lightrag.service" is stopped' in project.ok(
        "apply", "--auto-approve", PATH=path_with(units)
    )
    log = (units / "log").read_text().splitlines()
    assert (log[0], log[1]) == ("--user stop lightrag.service", "--user is-active lightrag.service")
    assert "--user start lightrag.service" in log
    assert (units / "lightrag.service").read_text() == "active"
    assert "LIGHTRAG_GRAPH_STORAGE=PGTableGraphStorage\n" in env_file.read_text("utf-8")
    project.ok("rollback", "notes", "--discard-new", "--yes", PATH=path_with(units))
    assert env_file.read_text("utf-8") == before
    assert (units / "log").read_text().splitlines().count("--user stop lightrag.service") == 2
    assert (units / "lightrag.service").read_text() == "active"


def test_a_unit_that_comes_back_or_is_missing_is_told(project: Project, units: Path) -> None:
    declare(project, kind="systemd", unit="lightrag.service")
    (units / "held").touch()
    refused = project.run("apply", "--auto-approve", PATH=path_with(units))
    assert (refused.returncode, "but it is active again" in refused.stderr) == (5, True)
    (units / "held").unlink()
    declare(project, kind="systemd", unit="other.service")
    refused = project.run("apply", "--auto-approve", PATH=path_with(units))
    assert refused.returncode == 5
    assert "Unit other.service not loaded" in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_a_unit_that_fails_on_the_new_backend_runs_on_the_old_one(
    project: Project, units: Path, env_file: Path
) -> None:
    """Also on the way back that leaves records behind; the registry is what it was, with what is kept."""
    before = env_file.read_text("utf-8")
    declare(project, kind="systemd", unit="lightrag.service", env_file="server.env")
    (units / "only_files").touch()
    refused = project.run("apply", "--auto-approve", PATH=path_with(units))
    assert refused.returncode == 5
    assert '"notes" is served by backend "files" again' in " ".join(refused.stderr.split())
    assert (units / "lightrag.service").read_text() == "active"
    assert env_file.read_text("utf-8") == before
    (units / "only_files").unlink()
    project.ok("apply", "--auto-approve", PATH=path_with(units))
    registry = project.folder / "state" / "test" / "registry.yaml"
    held, now = registry.read_text("utf-8"), env_file.read_text("utf-8")
    program = units / "bin" / "systemctl"
    text = program.read_text()
    program.write_text(text.replace('"failed" if (unit', '"failed" if "PGKV" not in env or (unit'))
    spec = (project.folder / "hybridrag.yaml").read_text("utf-8")
    refused = project.run("rollback", "notes", "--discard-new", "--yes", PATH=path_with(units))
    assert refused.returncode == 5
    assert '"notes" is served by backend "pg" again' in " ".join(refused.stderr.split())
    assert yaml.safe_load(registry.read_text("utf-8")) == yaml.safe_load(held)
    assert env_file.read_text("utf-8") == now
    assert (project.folder / "hybridrag.yaml").read_text("utf-8") == spec
    assert (units / "lightrag.service").read_text() == "active"


def test_the_real_systemd(project: Project) -> None:
    """Where there is one: a unit that does not exist is told in its own words."""
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        pytest.skip("systemd does not run here")
    declare(project, kind="systemd", unit="hybridrag-test-none.service", user=True)
    refused = project.run("apply", "--auto-approve")
    assert refused.returncode == 5


def commands(folder: Path, **scripts: str) -> dict[str, list[str]]:
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return {name: [sys.executable, str(folder / f"{name}.py")] for name in scripts}


def test_check_is_asked_after_the_pause_and_before_the_switch(project: Project) -> None:
    """A writer that was started in between stops the run, with the files serving."""
    check = (
        "import pathlib, sys\nseen = pathlib.Path('seen')\n"
        "seen.open('a').write('x')\nsys.exit('it runs' if len(seen.read_text()) == 2 else 0)\n"
    )
    declare(project, kind="command", **commands(project.folder, pause="", resume="", check=check))
    refused = project.run("apply", "--auto-approve")
    assert refused.returncode == 5
    assert "says that the writer does not stand any more; nothing was switched" in " ".join(
        refused.stderr.split()
    )
    assert not (project.folder / "state" / "test" / "registry.yaml").exists()
    project.ok("apply", "--auto-approve")
    assert (project.folder / "seen").read_text() == "xxxx"


def test_a_target_that_was_written_since_is_not_given_up(project: Project, env_file: Path) -> None:
    """The writer came up, wrote, and failed: what it wrote must not be lost, so nothing is put back."""
    assert project.dsn
    resume = (
        "import asyncio, asyncpg, sys\n"
        f"async def go():\n    c = await asyncpg.connect({project.dsn!r})\n"
        "    await c.execute(\"UPDATE lightrag_doc_status SET status = 'failed'\")\n    await c.close()\n"
        "asyncio.run(go())\nsys.exit('it crashed')\n"
    )
    declare(
        project, kind="command", env_file="server.env", **commands(project.folder, pause="", resume=resume)
    )
    refused = project.run("apply", "--auto-approve")
    told = " ".join(refused.stderr.split())
    assert refused.returncode == 5
    assert "it crashed" in told
    assert '"pg" was written since the switch' in told
    assert "hybridrag rollback notes" in told
    registry = yaml.safe_load((project.folder / "state" / "test" / "registry.yaml").read_text("utf-8"))
    assert registry["databases"]["notes"]["backend"] == "pg"
    assert "PGKVStorage" in env_file.read_text("utf-8")
    (project.folder / "resume.py").write_text("")
    project.ok("apply", "--auto-approve")


def test_commands_may_leave_something_in_the_background(project: Project) -> None:
    """A resume command that starts a daemon and keeps its output open does not hold the run."""
    resume = "import subprocess\nsubprocess.Popen(['sleep', '5'])\n"
    declare(project, kind="command", timeout=4, **commands(project.folder, pause="", resume=resume))
    project.ok("apply", "--auto-approve")


def test_validate_looks_at_the_env_file(project: Project, env_file: Path) -> None:
    declare(project, kind="systemd", unit="x.service", env_file="nowhere.env")
    assert "does not exist; it would be created" in " ".join(project.ok("validate").split())
    declare(project, kind="systemd", unit="x.service", env_file="server.env")
    assert "warning" not in project.ok("validate")
    env_file.chmod(0o644)
    assert "chmod 600" in project.ok("validate", "--json")


@pytest.mark.slow
def test_render_is_what_a_server_needs(project: Project, tmp_path: Path) -> None:
    """Complete on either side of a move; secrets only as references, unless asked for, and read-only."""
    from dotenv import dotenv_values

    def rendered(*more: str) -> dict[str, str | None]:
        path = tmp_path / "out.env"
        path.write_text(project.ok("render", "notes", *more))
        return dotenv_values(path, interpolate=False)

    on_files = rendered()
    assert on_files["WORKING_DIR"] == str(project.data)
    assert not (project.folder / "state").exists()
    project.ok("apply", "--auto-approve")
    found = rendered("--as", "env")
    assert found["LIGHTRAG_VECTOR_STORAGE"] == "PGVectorStorage"
    assert found["POSTGRES_WORKSPACE"] == found["WORKSPACE"] == "notes"
    assert (found["EMBEDDING_MODEL"], found["EMBEDDING_DIM"]) == ("hash-emb", "96")
    assert found["POSTGRES_PASSWORD"] == "${TEST_PG_PASSWORD}"
    password = (project.folder / ".env").read_text().strip().partition("=")[2]
    assert password not in project.ok("render", "notes")
    assert rendered("--with-secrets")["POSTGRES_PASSWORD"] == password
    service = yaml.safe_load(project.ok("render", "notes", "--as", "compose"))["services"]["lightrag-notes"]
    assert service["network_mode"] == "host"
    assert "./lightrag-notes.env:/app/.env" in service["volumes"]
    assert project.run("render", "nobody").returncode == 6
    seen = subprocess.run(
        ["script", "-qec", f"{sys.executable} -m hybridrag render notes --with-secrets", "/dev/null"],
        cwd=project.folder, capture_output=True, text=True, check=False,
    ) if shutil.which("script") else None  # fmt: skip
    if seen is not None:
        assert (seen.returncode, password in seen.stdout) == (5, False)
