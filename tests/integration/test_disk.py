"""Disks that are too small: refused before, stopped in time during, and finished once there is room.

On a volume of 400 MB, mounted for each test; only root may do that.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import EXAMPLE, Project, digests
from tests.support.big_database import build
from tests.support.docker.case import Case

DIM = 384
SPEC = """\
version: 1
environment: test
state: {{path: {state}}}
backends:
  files: {{type: json}}
  pg: {{type: postgres, provision: {provision}}}
databases:
  notes: {{path: ./notes, backend: pg, embedding: {{model: hash-emb, dim: {dim}}}}}
"""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of 400 MB in a file."""
    image = tmp_path / "volume.img"
    # Where the account that runs the server gets to, which it does not below pytest's own folder.
    place = Path(tempfile.mkdtemp(prefix="hybridrag-volume-"))
    place.chmod(0o755)
    with image.open("wb") as file:
        file.truncate(400 << 20)
    for command in (["mkfs.ext4", "-qF", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"a small volume needs {command[0]}")
        if done.returncode != 0:
            pytest.skip(f"a small volume cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def _project(folder: Path, state: Path, *, mb: float, provision: str = "{driver: embedded}") -> Project:
    folder.mkdir()
    build(folder / "notes", mb=mb, dim=DIM)
    text = SPEC.format(state=state, provision=provision, dim=DIM)
    (folder / "hybridrag.yaml").write_text(text, encoding="utf-8")
    return Project(folder, folder / "notes", None)


@pytest.fixture
def crowded(tmp_path: Path, volume: Path) -> Iterator[Callable[[float], Project]]:
    """A project of so many MB whose server's data and state folder lie on the small volume."""
    made: list[Project] = []

    def make(mb: float) -> Project:
        made.append(_project(tmp_path / "project", volume / "state", mb=mb))
        return made[-1]

    yield make
    for project in made:
        project.run("backend", "stop", "pg")


@contextlib.contextmanager
def _filling(volume: Path, events: Path, *, moment: str, leave: int) -> Iterator[None]:
    """Another process that takes all but `leave` bytes as soon as the event stream says `moment`."""
    program = (
        "import os, shutil, sys, time\n"
        "volume, events, moment, leave = sys.argv[1:]\n"
        "while not os.path.exists(events) or moment not in open(events).read(): time.sleep(0.01)\n"
        "file = os.open(volume + '/filler', os.O_CREAT | os.O_RDWR)\n"
        "os.posix_fallocate(file, 0, shutil.disk_usage(volume).free - int(leave))\n"
    )
    filler = subprocess.Popen(["python3", "-c", program, str(volume), str(events), moment, str(leave)])
    try:
        yield
        assert filler.wait(10) == 0, "the volume was not filled"
    finally:
        filler.kill()
        filler.wait()
        (volume / "filler").unlink(missing_ok=True)


def _serving(project: Project) -> str:
    return str(json.loads(project.ok("status", "--json"))["databases"][0]["backend"])


@pytest.mark.slow
def test_what_cannot_fit_is_warned_of_and_refused_before_anything_is_paused(
    crowded: Callable[[float], Project], volume: Path
) -> None:
    """The plan warns and can still be saved; validate refuses with needed, free, where, and what to do."""
    project = crowded(150)
    before = digests(project.data)
    told = project.ok("plan", "--out", "plan.json")
    assert 'warning: backend "pg" may not have the room' in " ".join(told.split())
    done = project.run("apply", "--auto-approve", "--events", "events.jsonl")
    assert done.returncode == 4
    for words in (
        "does not fit into backend",
        "are needed",
        "must stay in reserve",
        str(volume),
        "hybridrag apply",
    ):
        assert words in " ".join(done.stderr.split())
    begun = (project.folder / "events.jsonl").read_text("utf-8")
    assert '"step_started", "step": "pause' not in begun
    assert _serving(project) == "files"
    assert digests(project.data) == before


@pytest.mark.parametrize(
    ("moment", "leave"),
    [
        pytest.param(
            '"phase": "copying"', 80_000_000, id="the watcher stops the copy", marks=pytest.mark.slow
        ),
        pytest.param('"phase": "copying"', 0, id="the server itself is out of space", marks=pytest.mark.slow),
        pytest.param("building index", 40_000_000, id="during an index build", marks=pytest.mark.long),
    ],
)
def test_a_disk_that_fills_up_stops_the_copy_and_nothing_else(
    crowded: Callable[[float], Project], volume: Path, moment: str, leave: int
) -> None:
    """Exit 4 and words; the source as it was and serving, Postgres usable; with room, apply goes on and verifies."""
    project = crowded(45)
    before = digests(project.data)
    with _filling(volume, project.folder / "events.jsonl", moment=moment, leave=leave):
        done = project.run("apply", "--auto-approve", "--events", "events.jsonl")
        assert done.returncode == 4, done.stdout + done.stderr
        told = " ".join(done.stderr.split())
        assert "are free on the volume of" in told or "cannot be written: " in told
        assert "free space there, then run hybridrag apply" in told
        status = json.loads(project.ok("status", "--json"))
        assert status["databases"][0]["backend"] == "files"
        # Without a byte left Postgres may end itself, as it must when it cannot write its log.
        reachable = [entry["reachable"] for entry in status["backends"] if entry["name"] == "pg"]
        assert reachable == [True] or leave == 0
    assert digests(project.data) == before
    assert "0 missing, 0 extra, 0 different" in project.ok("apply", "--auto-approve")
    assert _serving(project) == "pg"
    assert digests(project.data) == before


def test_a_full_state_folder_is_told_in_words(project: Project, volume: Path) -> None:
    """The server's volume has room, the state folder's has none: refused before, with the same way out."""
    before = digests(project.data)
    with (volume / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(volume).free - 20_000_000)
    (volume / "state").mkdir()
    state = str(volume / "state")
    assert "the state folder needs 34 MB" in " ".join(project.ok("plan", "--state", state).split())
    done = project.run("apply", "--auto-approve", "--state", state)
    assert done.returncode == 4
    assert "the state folder needs" in " ".join(done.stderr.split())
    assert digests(project.data) == before
    (volume / "filler").unlink()
    project.ok("apply", "--auto-approve", "--state", state)


def test_an_external_server_beside_us_tells_its_room(project: Project) -> None:
    """Its data directory is on this machine and open to us, so the disk below it is known."""
    backends = {entry["name"]: entry for entry in json.loads(project.ok("status", "--json"))["backends"]}
    if os.geteuid() != 0 and "disk_free" not in backends["pg"]:
        pytest.skip("the server's data directory is closed to this account")
    assert 0 < backends["pg"]["disk_free"] <= backends["pg"]["disk_total"]


@pytest.mark.slow
def test_a_docker_volume_of_limited_size(case: Case, tmp_path: Path) -> None:
    """Asked inside the container: refused with the volume's own size, not with that of the machine's disk."""
    case.docker(
        "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=300m", case.volume
    )
    provision = f"{{driver: docker, image: {case.image}, container: {case.name}, volume: {case.volume}}}"
    project = _project(tmp_path / "project", tmp_path / "state", mb=150, provision=provision)
    done = project.run("apply", "--auto-approve")
    assert done.returncode == 4
    told = " ".join(done.stderr.split())
    assert "does not fit into backend" in told
    assert f'volume "{case.volume}" of container "{case.name}"' in told
    assert _serving(project) == "files"


@pytest.mark.slow
def test_a_protected_database_keeps_its_container(case: Case, tmp_path: Path) -> None:
    """prevent_destroy: another shm_size is refused, also with --allow and for another database; memory changes."""
    form = "{{driver: docker, image: {0.image}, container: {0.name}, volume: {0.volume}, shm_size: {1}, memory: {2}}}"
    project = _project(
        tmp_path / "project", tmp_path / "state", mb=1, provision=form.format(case, "512m", "2g")
    )
    spec = project.folder / "hybridrag.yaml"
    shutil.copytree(EXAMPLE / "archive", project.folder / "archive")
    protected = spec.read_text("utf-8").replace(
        "backend: pg,", "backend: pg, lifecycle: {prevent_destroy: true},"
    )
    protected += "  archive: {path: ./archive, backend: pg, embedding: {model: hash-emb, dim: 96}}\n"
    spec.write_text(protected, encoding="utf-8")
    project.ok("apply", "--auto-approve", "--target", "notes")
    before = case.inspect()["Id"]

    spec.write_text(protected.replace("512m", "600m"), encoding="utf-8")
    for more in ([], ["--target", "archive"], ["--allow", "other_data", "--allow", "restart"]):
        done = project.run("apply", "--auto-approve", *more)
        assert done.returncode == 5
        assert 'database "notes" forbids it by lifecycle.prevent_destroy' in " ".join(done.stderr.split())
    assert case.inspect()["Id"] == before

    spec.write_text(protected.replace("memory: 2g", "memory: 1g"), encoding="utf-8")
    project.ok("apply", "--auto-approve", "--target", "notes")
    assert case.inspect()["Id"] == before
    assert case.inspect()["HostConfig"]["Memory"] == 1 << 30
