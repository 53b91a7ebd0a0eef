"""An embedded Postgres after a kill, a reboot, a half-made cluster or a race: the next `ensure` puts it right."""

# ruff: noqa: F811  # fixtures are imported, and then named as arguments

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from hybridrag.backends.postgres import embedded_account, embedded_place
from tests.support.embedded import Make, ask, child, data_of, make, needs_programs, open_folder, postmaster  # noqa: F401

pytestmark = needs_programs


def test_two_at_once(make: Make) -> None:
    """Two processes that ensure the same fresh server both succeed, with one server."""
    server = make()
    both = [child(server.home, "ensure") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        output, _ = process.communicate(timeout=30)
        assert output == "done\n"
    assert ask(server, "SELECT 1") == 1


def test_killed_server_comes_back(make: Make) -> None:
    """After SIGKILL of the postmaster it is seen as stopped, and ensure brings it back with its data."""
    server = make()
    server.ensure()
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    port, pid = server.observe()["port"], postmaster(server)
    for _ in range(2):
        os.kill(postmaster(server), signal.SIGKILL)
        server.ensure()
        assert ask(server, "SELECT answer FROM kept") == 42
    assert server.observe()["port"] == port
    assert postmaster(server) != pid


@pytest.mark.parametrize("delay", [0.05, 0.25, 0.45, 0.6])
def test_killed_command_is_repaired(make: Make, delay: float) -> None:
    """SIGKILL of our own process at any moment of a fresh ensure: the next one ends well."""
    server = make()
    victim = child(server.home, "ensure")
    assert victim.stdout is not None
    assert victim.stdin is not None
    victim.stdout.readline()
    victim.stdin.write("\n")
    victim.stdin.flush()
    time.sleep(delay)
    victim.kill()
    victim.communicate()
    assert server.observe()["state"] in {"absent", "stopped", "running", "broken"}
    server.ensure()
    assert ask(server, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == "vector"
    place = data_of(server).parent
    assert not [*place.glob("data.*"), *place.glob("initdb*")]


def test_leftovers_of_initdb(make: Make) -> None:
    """A half-made cluster of a killed initdb is not a cluster: it is made again."""
    server = make()
    server.home.mkdir(parents=True)
    account = embedded_account.account_for(None)
    place = server.home
    if account is not None:
        place = embedded_place.new_place(server.home).data.parent
    (place / "data.new" / "base").mkdir(parents=True)
    (place / "data.new" / "PG_VERSION").write_text("16\n")
    (place / "initdb.password").write_text("old\n")
    (server.home / "password.new").write_text("half")
    assert server.observe()["state"] == "absent"
    server.ensure()
    assert ask(server, "SELECT 1") == 1
    assert not (place / "data.new").exists()


def test_reused_process_id(make: Make) -> None:
    """After a reboot the id in postmaster.pid may be some other program's: not running, and no obstacle."""
    server = make()
    server.ensure()
    pid_file = data_of(server) / "postmaster.pid"
    left = pid_file.read_text()
    server.stop()
    uid = pid_file.parent.stat().st_uid
    # of the same user, or Postgres itself would not mind
    stranger = subprocess.Popen(["sleep", "60"], user=uid if os.geteuid() == 0 else None)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *left.splitlines()[1:]]) + "\n")
        os.chown(pid_file, uid, -1)
        assert server.observe()["state"] == "stopped"
        server.ensure()
        assert ask(server, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
